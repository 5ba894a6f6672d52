"""⑥ Dagster's event log after a purge: what it was told of nodes that are purged is deleted from it.

Dagster's own `wipe_asset_partitions` is not there for its open-source storages, so the rows are deleted here: in the
index, and in the file of each run where there is one. Of other partitions, and of what was told later, nothing is. What
the runs printed, their messages and failures, and what checks found go whole: it cannot be told apart, and `ct logs`
has it of the others.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    AssetKeyTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.tags import PARTITION_NAME_TAG
from sqlalchemy import ColumnElement, and_, func, or_, select, text

from ct_assets.keys import PROJECT_TAG, key_of
from ctcore.catalog.tables import event
from ctcore.project import Project
from ctcore.purging.inside import gathering

AT_ONCE = 500  # partitions, or runs, in one statement
_FAILED = "PIPELINE_FAILURE"
_CHECKED = "ASSET_CHECK_EVALUATION"
_SAYING = ("STEP_OUTPUT", "STEP_FAILURE", _CHECKED)

log = SqlEventLogStorageTable.c


class Past(NamedTuple):
    """A purge: its number and time; of each asset the partitions that are gone, and the runs that made them."""

    number: int
    before: datetime
    nodes: dict[str, set[str]]
    runs: dict[str, set[str]]


def wipe_purged(project: Project, instance: dg.DagsterInstance, after: int = 0) -> tuple[int, int]:
    """Delete what was told of the nodes of purges after this number. Returns the last purge, and how many events."""
    storage: Any = instance.event_log_storage
    last, deleted = after, 0
    for past in _purges(project, after):
        last = max(last, past.number)
        for asset, some in past.nodes.items():
            runs = _known(instance, past.runs.get(asset, ())) | _alone(project, instance, some, past.before)
            deleted += wipe(instance, key_of(project, asset), some, past.before, runs)
        for step in gathering(project.steps):  # who was inside what failed, nobody can tell
            key = key_of(project, step)
            with storage.index_connection() as connection:
                runs = _runs(connection, and_(log.asset_key == key.to_string(), log.timestamp < past.before))
            _silence(instance, key, runs, past.before)
        if past.number <= after:
            _wipe_files(project, instance, past)
    return last, deleted


def _wipe_files(project: Project, instance: dg.DagsterInstance, past: Past) -> None:
    """Delete what names a node of a purge in the files of runs that are in no index any more: it was put back."""
    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        if connection.dialect.name != "sqlite":
            return
    keys = [(key_of(project, asset).to_string(), sorted(some)) for asset, some in past.nodes.items()]
    mine = or_(*(and_(log.asset_key == key, log.partition.in_(some)) for key, some in keys))
    tags = {PROJECT_TAG: project.id} if project.is_shared else {}
    older = dg.RunsFilter(tags=tags, created_before=past.before.replace(tzinfo=UTC))
    for run in instance.get_run_ids(filters=older):
        _forget(storage, run, mine, past.before)


def _purges(project: Project, after: int) -> list[Past]:
    """The nodes of each are of steps, also where they were never made, and of the registry.

    With those of the same patient before it: what was put back since may be of what these purged.
    """
    found: dict[int, Past] = {}
    whose: dict[int, str] = {}
    with project.catalog.read() as connection:
        rows = connection.execute(select(event.c.at, event.c.body).where(event.c.kind == "purge")).all()
    for at, body in rows:
        said = json.loads(body)
        whose[said["purge"]] = said["patient"]
        past = found.setdefault(said["purge"], Past(said["purge"], _naive(at), {}, {}))
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


def _known(instance: dg.DagsterInstance, runs: Iterable[str]) -> set[str]:
    """Those that Dagster has."""
    return set(instance.get_run_ids(filters=dg.RunsFilter(run_ids=sorted(runs)))) if runs else set()


def _alone(project: Project, instance: dg.DagsterInstance, partitions: set[str], before: datetime) -> set[str]:
    """Runs of one of these partitions, also where the index does not name them any more."""
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
    """UTC, as Dagster keeps it."""
    return datetime.fromisoformat(at).replace(tzinfo=None)


def wipe(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: set[str], before: datetime, more: Iterable[str]
) -> int:
    """Delete the events of these partitions of an asset that are older. How many there were in the index. `more` are
    runs that made them, beside those that the index names.

    The index goes last: it alone knows the runs, and whoever is killed on the way finds the others by it.
    """
    storage: Any = instance.event_log_storage
    key = asset.to_string()
    deleted = 0
    for some in _parts(partitions):
        mine = and_(log.asset_key == key, log.partition.in_(some), log.timestamp < before)
        with storage.index_connection() as connection:
            deleted += connection.execute(select(func.count()).where(mine)).scalar()
            runs = list(dict.fromkeys([*_runs(connection, mine), *more]))
        _silence(instance, asset, runs, before)
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
    _really(connection)
    tags = AssetEventTagsTable.c.event_id.in_(select(log.id).where(those))
    connection.execute(AssetEventTagsTable.delete().where(tags))
    connection.execute(SqlEventLogStorageTable.delete().where(those))


def _silence(instance: dg.DagsterInstance, asset: dg.AssetKey, runs: Iterable[str], before: datetime) -> None:
    """What runs said of an asset without naming a partition, and what checks found in it: nobody can tell of whom."""
    storage: Any = instance.event_log_storage
    checks = AssetCheckExecutionsTable.c
    looked = and_(checks.asset_key == asset.to_string(), checks.evaluation_event_timestamp < before)
    listed = list(runs)
    with storage.index_connection() as connection:
        has_files = connection.dialect.name == "sqlite"
        judged = connection.execute(select(checks.run_id).where(looked).distinct()).scalars().all()
    for run in judged if has_files else ():  # also where a check was run by itself
        _forget(storage, run, and_(log.step_key == asset.path[-1], log.dagster_event_type == _CHECKED), before)
    for run in listed:
        _forget(storage, run, _said(run, asset), before)
        instance.compute_log_manager.delete_logs(prefix=[run, "compute_logs"])
    with storage.index_connection() as connection:
        _really(connection)
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
        _really(connection)
        connection.execute(SqlEventLogStorageTable.delete().where(those, log.timestamp < before))


def _said(run: str, asset: dg.AssetKey) -> ColumnElement[bool]:
    """In a run of one partition, the step's output repeats what the materialization says, without its partition;
    messages and failures have the last lines of what a call printed."""
    kind = log.dagster_event_type
    of_step = and_(log.step_key == asset.path[-1], or_(kind.is_(None), kind.in_(_SAYING)))
    return and_(log.run_id == run, or_(of_step, kind == _FAILED))


def _really(connection: Any) -> None:
    """What is deleted is overwritten, where that is to be asked for."""
    if connection.dialect.name == "sqlite":
        connection.execute(text("PRAGMA secure_delete=ON"))
