"""⑥ Dagster's event log after a purge: what it was told of nodes that are purged is deleted from it.

Dagster's own `wipe_asset_partitions` is not there for its open-source storages, so the rows are deleted here: in the
index, and in the file of each run where there is one. Of other partitions, and of what was told later, nothing is. What
the runs printed, their messages and failures, and what checks found go whole: it cannot be told apart, and `ct logs`
has it of the others.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any

import dagster as dg
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    AssetKeyTable,
    SqlEventLogStorageTable,
)
from sqlalchemy import ColumnElement, and_, func, or_, select, text

from ct_assets.keys import key_of
from ctcore.catalog.tables import event
from ctcore.project import Project
from ctcore.purging.inside import gathering

AT_ONCE = 500  # partitions, or runs, in one statement
_FAILED = "PIPELINE_FAILURE"
_CHECKED = "ASSET_CHECK_EVALUATION"
_SAYING = ("STEP_OUTPUT", "STEP_FAILURE", _CHECKED)

log = SqlEventLogStorageTable.c


def wipe_purged(project: Project, instance: dg.DagsterInstance, after: int = 0) -> tuple[int, int]:
    """Delete what was told of the nodes of purges after this number. Returns the last purge, and how many events."""
    storage: Any = instance.event_log_storage
    last, deleted = after, 0
    for number, before, nodes in _purges(project, after):
        last = max(last, number)
        deleted += sum(wipe(instance, key_of(project, asset), some, before) for asset, some in nodes.items())
        for step in gathering(project.steps):  # who was inside what failed, nobody can tell
            key = key_of(project, step)
            with storage.index_connection() as connection:
                runs = _runs(connection, and_(log.asset_key == key.to_string(), log.timestamp < before))
            _silence(instance, key, runs, before)
    return last, deleted


def _purges(project: Project, after: int) -> Iterator[tuple[int, datetime, Mapping[str, set[str]]]]:
    """Each purge with its time and its nodes: of steps, also where they were never made, and of the registry."""
    found: dict[int, tuple[datetime, dict[str, set[str]]]] = {}
    with project.catalog.read() as connection:
        rows = connection.execute(select(event.c.at, event.c.body).where(event.c.kind == "purge")).all()
    for at, body in rows:
        said = json.loads(body)
        if said["purge"] > after:
            _, nodes = found.setdefault(said["purge"], (_naive(at), {}))
            for name in [*(one["node"] for one in said["removed"]), *said.get("own", ())]:
                asset, _, partition = name.partition("/")
                nodes.setdefault(asset, set()).add(partition)
    for number, (at, nodes) in sorted(found.items()):
        for step in project.steps:
            if step.level in nodes:
                nodes[step.name] = nodes.get(step.name, set()) | nodes[step.level]
        yield number, at, nodes


def _naive(at: str) -> datetime:
    """UTC, as Dagster keeps it."""
    return datetime.fromisoformat(at).replace(tzinfo=None)


def wipe(instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: set[str], before: datetime) -> int:
    """Delete the events of these partitions of an asset that are older. How many there were in the index.

    The index goes last: it alone knows the runs, and whoever is killed on the way finds the others by it.
    """
    storage: Any = instance.event_log_storage
    key = asset.to_string()
    deleted = 0
    listed = sorted(partitions)
    for some in (listed[at : at + AT_ONCE] for at in range(0, len(listed), AT_ONCE)):
        mine = and_(log.asset_key == key, log.partition.in_(some), log.timestamp < before)
        with storage.index_connection() as connection:
            deleted += connection.execute(select(func.count()).where(mine)).scalar()
            runs = _runs(connection, mine)
        _silence(instance, asset, runs, before)
        for connect in (*(partial(storage.run_connection, run) for run in runs), storage.index_connection):
            with connect() as connection:
                _delete(connection, mine)
    with storage.index_connection() as connection:
        last = AssetKeyTable.update().where(AssetKeyTable.c.asset_key == key)
        connection.execute(last.values(last_materialization=None, cached_status_data=None))
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
            ended = and_(log.run_id.in_(listed[at : at + AT_ONCE]), log.dagster_event_type == _FAILED)
            connection.execute(SqlEventLogStorageTable.delete().where(ended, log.timestamp < before))


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
