"""Dagster's events as rows of its SQLite files: what Dagster's own `store_event` writes, in less of its time.

Dagster writes each event as text up to three times, has SQLAlchemy build and look up each statement anew, and writes
the whole event into the row of its asset each time, where only the last one before a commit stays.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import Any

from dagster import DagsterEventType, EventLogEntry
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS, EVENT_TYPE_TO_PIPELINE_RUN_STATUS
from dagster._core.storage.event_log import schema
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
from sqlalchemy import Connection, bindparam
from sqlalchemy.dialects import sqlite

_PARTS = (
    "_event_to_row",
    "_event_insert_timestamp",
    "_tags_for_asset_event",
    "_store_asset_event",
    "_update_asset_check_evaluation",
    "store_asset_check_event",
    "index_connection",
    "run_connection",
    "has_table",
)
_EVENT = schema.SqlEventLogStorageTable.insert()
_TAG = schema.AssetEventTagsTable.insert()
_CHECKS = schema.AssetCheckExecutionsTable
_PLANNED = _CHECKS.insert()
_VALUES = (
    "execution_status",
    "evaluation_event",
    "evaluation_event_timestamp",
    "evaluation_event_storage_id",
    "materialization_event_storage_id",
)
_EVALUATED = (
    _CHECKS.update()
    .where(
        _CHECKS.c.asset_key == bindparam("of_asset"),
        _CHECKS.c.check_name == bindparam("of_check"),
        _CHECKS.c.run_id == bindparam("of_run"),
        _CHECKS.c.partition.is_not_distinct_from(bindparam("of_partition")),
    )
    .values({name: bindparam(name) for name in _VALUES})
)
_MIRRORED = {*ASSET_EVENTS, *ASSET_CHECK_EVENTS, *EVENT_TYPE_TO_PIPELINE_RUN_STATUS}


@lru_cache
def _compiled(statement: Any, names: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """A statement as SQLite takes it, and the order of its values."""
    compiled: Any = statement.compile(dialect=sqlite.dialect(paramstyle="qmark"), column_keys=list(names))
    return str(compiled), tuple(compiled.positiontup)


def _execute(connection: Connection, statement: Any, row: dict[str, Any]) -> Any:
    """As SQLAlchemy does it, in a fifth of the time."""
    text, names = _compiled(statement, tuple(row))
    driver: Any = connection.connection.driver_connection
    return driver.execute(text, [_plain(row[name]) for name in names])


def _plain(value: Any) -> Any:
    """SQLAlchemy writes times for SQLite so (its manual, "SQLite", DATETIME)."""
    return value.replace(tzinfo=None).isoformat(" ", "microseconds") if isinstance(value, datetime) else value


def _of_event(row: dict[str, Any], number: int) -> dict[str, Any]:
    """The event that a row of a check was last written for."""
    return {
        "evaluation_event": row["event"],
        "evaluation_event_timestamp": row["timestamp"],
        "evaluation_event_storage_id": number,
    }


def can_write(storage: Any) -> bool:
    """Whether this is the storage of Dagster 1.13 that the writer knows."""
    is_stock = getattr(type(storage), "store_event", None) is SqliteEventLogStorage.store_event
    return is_stock and all(getattr(storage, name, None) is not None for name in _PARTS)


class EventWriter:
    """Stores events in an open storage. `flush` writes the rows of assets, before anybody else reads them."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._last: dict[str, tuple[EventLogEntry, int]] = {}
        self._is_writing = False

    def store(self, event: EventLogEntry) -> None:
        """As `SqliteEventLogStorage.store_event`."""
        storage, kind = self._storage, event.dagster_event_type if event.is_dagster_event else None
        row = storage._event_to_row(event)
        with storage.run_connection(event.run_id) as connection:
            _execute(connection, _EVENT, row)
        if kind not in _MIRRORED:
            return
        with self._writing(), storage.index_connection() as connection:
            number = _execute(connection, _EVENT, row).lastrowid
            if kind in ASSET_EVENTS:
                self._tag(connection, event, number, row)
                self._note(connection, event, number)
        if kind == DagsterEventType.ASSET_CHECK_EVALUATION and event.run_id:
            self._evaluated(event, number, row)
        elif kind == DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
            self._planned(event, number, row)
        elif kind in ASSET_CHECK_EVENTS:
            storage.store_asset_check_event(event, number)

    def flush(self, connection: Connection) -> None:
        """Write the rows of the assets of which materializations were stored."""
        last, self._last = self._last, {}
        for event, number in last.values():
            self._storage._store_asset_event(connection, event, number)

    @property
    def is_behind(self) -> bool:
        """Whether rows of assets are to be written before anything else is done with the index."""
        return bool(self._last) and not self._is_writing

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._is_writing = True
        try:
            yield
        finally:
            self._is_writing = False

    def _note(self, connection: Connection, event: EventLogEntry, number: int) -> None:
        """An asset's row tells of its latest materialization, whatever else was said of it meanwhile."""
        key = event.get_dagster_event().asset_key
        if key is None:
            return
        name = key.to_string()
        if event.get_dagster_event().is_step_materialization:
            self._last[name] = event, number
            return
        if name in self._last:
            self._storage._store_asset_event(connection, *self._last.pop(name))
        self._storage._store_asset_event(connection, event, number)

    def _tag(self, connection: Connection, event: EventLogEntry, number: int, row: dict[str, Any]) -> None:
        tags = self._storage._tags_for_asset_event(event)
        if not tags or not self._storage.has_table(schema.AssetEventTagsTable.name):
            return
        for key, value in tags.items():
            mine = {"event_id": number, "asset_key": row["asset_key"], "key": key, "value": value}
            _execute(connection, _TAG, {**mine, "event_timestamp": self._storage._event_insert_timestamp(event)})

    def _planned(self, event: EventLogEntry, number: int, row: dict[str, Any]) -> None:
        planned: Any = event.get_dagster_event().event_specific_data
        subset = planned.partitions_subset
        values = {
            "asset_key": planned.asset_key.to_string(),
            "check_name": planned.check_name,
            "run_id": event.run_id,
            "execution_status": "PLANNED",
            **_of_event(row, number),
        }
        with self._storage.index_connection() as connection:
            for partition in subset.get_partition_keys() if subset else [None]:
                _execute(connection, _PLANNED, {**values, "partition": partition})

    def _evaluated(self, event: EventLogEntry, number: int, row: dict[str, Any]) -> None:
        found: Any = event.get_dagster_event().event_specific_data
        target = found.target_materialization_data
        values = {
            "of_asset": found.asset_key.to_string(),
            "of_check": found.check_name,
            "of_run": event.run_id,
            "of_partition": found.partition,
            "execution_status": "SUCCEEDED" if found.passed else "FAILED",
            **_of_event(row, number),
            "materialization_event_storage_id": target.storage_id if target else None,
        }
        with self._storage.index_connection() as connection:
            updated = _execute(connection, _EVALUATED, values).rowcount
        if updated != 1:  # nobody planned it, or it was planned twice: Dagster knows what then
            self._storage._update_asset_check_evaluation(event, number)


class LastMaterializations:
    """What Dagster was told last of a partition, asked by each check of a step: the same as long as nobody can have
    told more."""

    def __init__(self, fetch: Callable[..., Any]) -> None:
        self._fetch = fetch
        self._known: dict[str, Any] = {}
        self._times = 0

    def fetch(self, *arguments: Any, **more: Any) -> Any:
        asked = repr((arguments, sorted(more.items())))
        if asked in self._known:
            return self._known[asked]
        before, found = self._times, self._fetch(*arguments, **more)
        if self._times == before:  # else the transaction in which it was read has ended
            self._known[asked] = found
        return found

    def forget(self) -> None:
        """An event came, or may come from others."""
        self._known.clear()
        self._times += 1
