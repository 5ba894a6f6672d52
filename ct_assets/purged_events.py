"""Deletes events of purged nodes from Dagster's event log.

Dagster's open-source storages do not implement `wipe_asset_partitions`, so this module deletes the rows: in the index,
and in the file of each run where there is one. Events of other partitions and later events stay. The output of runs,
their messages and failures, and check results cannot be assigned to a partition, so all of them go; `ct logs` has the
output of the other nodes.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.instance.utils import RUNLESS_RUN_ID
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    AssetKeyTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.tags import PARTITION_NAME_TAG
from sqlalchemy import ColumnElement, and_, func, or_, select, text

from ct_assets.asset_keys import PROJECT_TAG, key_of
from ctcore.catalog.tables import event
from ctcore.deletion.redacted_events import purges
from ctcore.lineage.containment import cohort_derived_steps
from ctcore.project import Project

# A parameter each, of which SQLite before 3.32 takes 999 a statement (sqlite.org/limits.html).
AT_ONCE = 500  # most partitions or runs in one statement
_FAILED = "PIPELINE_FAILURE"
_CHECKED = "ASSET_CHECK_EVALUATION"
_SAYING = ("STEP_OUTPUT", "STEP_FAILURE", _CHECKED)

log = SqlEventLogStorageTable.c


class PastPurge(NamedTuple):
    """A purge: its number and time (UTC, naive); asset → purged partitions; asset → runs that made them."""

    number: int
    before: datetime
    nodes: dict[str, set[str]]
    runs: dict[str, set[str]]


def wipe_purged(project: Project, instance: dg.DagsterInstance, after: int = 0) -> tuple[int, int]:
    """Delete the events of purges after this number. Returns the number of the last purge, and how many events."""
    storage: Any = instance.event_log_storage
    last, deleted = after, 0
    for past in _purges(project, after):
        last = max(last, past.number)
        for asset, some in past.nodes.items():
            runs = _known_runs(instance, past.runs.get(asset, ())) | _single_partition_runs(
                project, instance, some, past.before
            )
            deleted += wipe(instance, key_of(project, asset), some, past.before, runs)
        for step in cohort_derived_steps(project.steps):  # nobody can tell who was inside a failed node
            key = key_of(project, step)
            with storage.index_connection() as connection:
                runs = _runs(connection, and_(log.asset_key == key.to_string(), log.timestamp < past.before))
            _delete_messages(instance, key, runs, past.before)
        if past.number <= after:
            _wipe_files(project, instance, past)
    return last, deleted


def last_recovery(project: Project) -> int:
    """Number of the last event `recover`, which may have restored purges; 0 where there is none."""
    with project.catalog.read() as connection:
        return connection.execute(select(func.max(event.c.seq)).where(event.c.kind == "recover")).scalar() or 0


def _wipe_files(project: Project, instance: dg.DagsterInstance, past: PastPurge) -> None:
    """Delete a purge's events from files of runs that the index no longer has, because somebody restored the files."""
    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        if connection.dialect.name != "sqlite":
            return
    keys = [(key_of(project, asset).to_string(), sorted(some)) for asset, some in past.nodes.items()]
    mine = or_(*(and_(log.asset_key == key, log.partition.in_(some)) for key, some in keys))
    tags = {PROJECT_TAG: project.id} if project.is_shared else {}
    older = dg.RunsFilter(tags=tags, created_before=past.before.replace(tzinfo=UTC))
    for run in (*instance.get_run_ids(filters=older), RUNLESS_RUN_ID):
        _forget(storage, run, mine, past.before)


def _purges(project: Project, after: int) -> list[PastPurge]:
    """Purges after this number, with all their nodes of steps, made or not, and of the registry.

    Earlier purges of the same patients are included, because their events may have been restored since.
    """
    found: dict[int, PastPurge] = {}
    whose: dict[int, str] = {}
    with project.catalog.read() as connection:
        rows = connection.execute(select(event.c.seq, event.c.at).where(event.c.kind == "purge")).all()
        told, at = purges(connection).bodies, {row.seq: row.at for row in rows}
    for said in told:
        whose[said["purge"]] = said["patient"]
        past = found.setdefault(said["purge"], PastPurge(said["purge"], _naive(at[said["seq"]]), {}, {}))
        for name in [*(one["node"] for one in said["removed"]), *said.get("own", ())]:
            asset, _, partition = name.partition("/")
            past.nodes.setdefault(asset, set()).add(partition)
        for one in said["removed"]:
            past.runs.setdefault(one["node"].partition("/")[0], set()).add(one["run_id"] or "")
    for past in found.values():
        for step in project.steps:
            if step.level in past.nodes:
                past.nodes[step.name] = past.nodes.get(step.name, set()) | past.nodes[step.level]
    again = {patient for number, patient in whose.items() if number > after}
    return [past for number, past in sorted(found.items()) if whose[number] in again]


def _known_runs(instance: dg.DagsterInstance, runs: Iterable[str]) -> set[str]:
    """The run IDs that Dagster knows."""
    return set(instance.get_run_ids(filters=dg.RunsFilter(run_ids=sorted(runs)))) if runs else set()


def _single_partition_runs(
    project: Project, instance: dg.DagsterInstance, partitions: set[str], before: datetime
) -> set[str]:
    """Single-partition runs of these partitions, by their tags: the index may no longer name them."""
    found = set[str]()
    for some in _parts(partitions):
        tags: dict[str, str | list[str]] = {PARTITION_NAME_TAG: some}
        tags |= {PROJECT_TAG: project.id} if project.is_shared else {}
        older = dg.RunsFilter(tags=tags, created_before=before.replace(tzinfo=UTC))
        found |= set(instance.get_run_ids(filters=older))
    return found


def _parts(partitions: Iterable[str]) -> Iterator[list[str]]:
    listed = sorted(partitions)
    yield from (listed[at : at + AT_ONCE] for at in range(0, len(listed), AT_ONCE))


def _naive(at: str) -> datetime:
    """Naive UTC, as Dagster stores it."""
    return datetime.fromisoformat(at).replace(tzinfo=None)


def wipe(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: set[str], before: datetime, more: Iterable[str]
) -> int:
    """Delete events of these partitions from before `before`; returns how many the index had. `more`: runs that made
    them, in addition to those in the index.

    The index is cleaned last: only it knows the runs, so after a kill the next call finds the rest.
    """
    storage: Any = instance.event_log_storage
    key = asset.to_string()
    deleted = 0
    for some in _parts(partitions):
        mine = and_(log.asset_key == key, log.partition.in_(some), log.timestamp < before)
        with storage.index_connection() as connection:
            deleted += connection.execute(select(func.count()).where(mine)).scalar()
            runs = list(dict.fromkeys([*_runs(connection, mine), *more]))
        _delete_messages(instance, asset, runs, before)
        for connect in (*(partial(storage.run_connection, run) for run in runs), storage.index_connection):
            with connect() as connection:
                _delete(connection, mine)
    with storage.index_connection() as connection:
        last = AssetKeyTable.update().where(AssetKeyTable.c.asset_key == key)
        connection.execute(last.values(last_materialization=None, cached_status_data=None))
        tags = AssetEventTagsTable.c
        ownerless = tags.event_id.not_in(select(log.id).where(log.asset_key == key))
        connection.execute(AssetEventTagsTable.delete().where(tags.asset_key == key, ownerless))
    return deleted


def _runs(connection: Any, those: ColumnElement[bool]) -> list[str]:
    return connection.execute(select(log.run_id).where(those).distinct()).scalars().all()


def _delete(connection: Any, those: ColumnElement[bool]) -> None:
    _overwrite_deleted(connection)
    tags = AssetEventTagsTable.c.event_id.in_(select(log.id).where(those))
    connection.execute(AssetEventTagsTable.delete().where(tags))
    connection.execute(SqlEventLogStorageTable.delete().where(those))


def _delete_messages(instance: dg.DagsterInstance, asset: dg.AssetKey, runs: Iterable[str], before: datetime) -> None:
    """Delete messages of runs that name no partition, and check results: nobody can tell whom they are about."""
    storage: Any = instance.event_log_storage
    checks = AssetCheckExecutionsTable.c
    looked = and_(checks.asset_key == asset.to_string(), checks.evaluation_event_timestamp < before)
    listed = list(runs)
    with storage.index_connection() as connection:
        has_files = connection.dialect.name == "sqlite"
        judged = connection.execute(select(checks.run_id).where(looked).distinct()).scalars().all()
    for run in judged if has_files else ():  # also where a check was run by itself
        of_step = log.step_key == asset.path[-1] if run != RUNLESS_RUN_ID else log.step_key.is_(None)
        _forget(storage, run, and_(of_step, log.dagster_event_type == _CHECKED), before)
    for run in listed:
        _forget(storage, run, _said(run, asset), before)
        if run != RUNLESS_RUN_ID:
            instance.compute_log_manager.delete_logs(prefix=[run, "compute_logs"])
    with storage.index_connection() as connection:
        _overwrite_deleted(connection)
        found = log.id.in_(select(checks.evaluation_event_storage_id).where(looked))
        connection.execute(SqlEventLogStorageTable.delete().where(found))
        connection.execute(AssetCheckExecutionsTable.delete().where(looked))
        for at in range(0, len(listed), AT_ONCE):
            judged = and_(log.step_key == asset.path[-1], log.dagster_event_type == _CHECKED)
            ended = or_(log.dagster_event_type == _FAILED, judged)
            theirs = and_(log.run_id.in_(listed[at : at + AT_ONCE]), ended, log.timestamp < before)
            connection.execute(SqlEventLogStorageTable.delete().where(theirs))


def _forget(storage: Any, run: str, those: ColumnElement[bool], before: datetime) -> None:
    """Delete in the file of a run."""
    with storage.run_connection(run) as connection:
        _overwrite_deleted(connection)
        connection.execute(SqlEventLogStorageTable.delete().where(those, log.timestamp < before))


def _said(run: str, asset: dg.AssetKey) -> ColumnElement[bool]:
    """Condition for events of a step without a partition: its output repeats the data of the materialization, and
    messages and failures hold the last lines that a call printed."""
    kind = log.dagster_event_type
    of_step = and_(log.step_key == asset.path[-1], or_(kind.is_(None), kind.in_(_SAYING)))
    return and_(log.run_id == run, or_(of_step, kind == _FAILED))


def _overwrite_deleted(connection: Any) -> None:
    """Make SQLite overwrite deleted rows with zeros (https://sqlite.org/pragma.html#pragma_secure_delete)."""
    if connection.dialect.name == "sqlite":
        connection.execute(text("PRAGMA secure_delete=ON"))
