"""What Dagster writes before a run starts: an event for each partition of the run.

Stock Dagster writes them one by one, each with a connection and a commit of its own (12.5 ms of processor each on
SQLite). So the daemon was busy for minutes with a backfill of 10,000, and runs that waited for it were taken for lost.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from dagster import DagsterEventType, EventLogEntry, RunsFilter
from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage

from ctcore.errors import CtError
from ctcore.planning.partition_ranges import ASKED_TAG, asked_partitions

_TOGETHER = "DAGSTER_EVENT_BATCH_SIZE"  # Dagster reads it at each event
# More than any run has partitions, so that the events of a run come as one batch.
MOST = "100000"


def write_planned_together(storage: DagsterStorage) -> None:
    """Give a storage planned events in one transaction a run, and none for what a run passes over."""
    os.environ.setdefault(_TOGETHER, MOST)
    events: Any = storage.event_log_storage

    def store(batch: Sequence[EventLogEntry]) -> None:
        planned = [one for one in batch if one.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION_PLANNED]
        if others := [one for one in batch if one.dagster_event_type != DagsterEventType.ASSET_MATERIALIZATION_PLANNED]:
            type(events).store_event_batch(events, others)
        if wanted := list(_wanted(storage, planned)):
            _store(events, wanted)

    vars(events)["store_event_batch"] = store


def _wanted(storage: DagsterStorage, planned: Iterable[EventLogEntry]) -> Iterable[EventLogEntry]:
    """Without the events of partitions that a run only passes over: with them, a run that fails would show these as
    failed."""
    by_asset: dict[tuple[str, str], list[EventLogEntry]] = defaultdict(list)
    for one in planned:
        by_asset[one.run_id, str(one.get_dagster_event().asset_key)].append(one)
    runs = storage.run_storage.get_runs(RunsFilter(run_ids=sorted({run for run, _ in by_asset}))) if by_asset else ()
    tags = {run.run_id: run.tags.get(ASKED_TAG) for run in runs}
    for (run, _), some in by_asset.items():
        said, partitions = tags.get(run), [one.get_dagster_event().partition or "" for one in some]
        try:
            asked = None if said is None else set(asked_partitions(said, partitions))
        except CtError:  # somebody was registered or purged meanwhile: the run says so
            asked = None
        yield from (one for one, who in zip(some, partitions, strict=True) if asked is None or who in asked)


def _store(events: Any, planned: Sequence[EventLogEntry]) -> None:
    """One transaction. On SQLite it is one in the file of each run, too."""
    table, rows = SqlEventLogStorageTable, [events._event_to_row(one) for one in planned]
    runs = sorted({one.run_id for one in planned}) if isinstance(events, SqliteEventLogStorage) else ()
    # The index last: whoever reads there of an event finds it in the file of its run.
    for run in runs:
        with events.run_connection(run) as connection:
            connection.execute(table.insert(), [row for row in rows if row["run_id"] == run])
    with events.index_transaction() as connection:
        # RETURNING gives rows in no particular order (sqlite.org/lang_returning.html); each event needs its own number.
        inserted = table.insert().returning(table.c.id, sort_by_parameter_order=True)
        numbers = connection.execute(inserted, rows).scalars().all()
        events._store_asset_event_tags(connection, planned, numbers)
        last = {one.get_dagster_event().asset_key: (one, number) for one, number in zip(planned, numbers, strict=True)}
        for one, number in last.values():  # an asset's row tells of its latest event only
            events._store_asset_event(connection, one, number)
