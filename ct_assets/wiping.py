"""⑥ Dagster's event log after a purge: what it was told of nodes that are purged is deleted from it.

Dagster's own `wipe_asset_partitions` is not there for its open-source storages, so the rows are deleted here: in the
index, and in the file of each run where there is one. Of other partitions, and of what was told later, nothing is. What
the runs printed goes whole: it cannot be told apart, and `ct logs` has it of the others.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import dagster as dg
from dagster._core.storage.event_log.schema import AssetEventTagsTable, AssetKeyTable, SqlEventLogStorageTable
from sqlalchemy import ColumnElement, and_, select, text

from ct_assets.keys import key_of
from ctcore.catalog.tables import event
from ctcore.project import Project

AT_ONCE = 500  # partitions in one statement

log = SqlEventLogStorageTable.c


def wipe_purged(project: Project, instance: dg.DagsterInstance, after: int = 0) -> tuple[int, int]:
    """Delete what was told of the nodes of purges after this number. Returns the last purge, and how many events."""
    last, deleted = after, 0
    for number, before, nodes in _purges(project, after):
        last = max(last, number)
        deleted += sum(wipe(instance, key_of(project, asset), some, before) for asset, some in nodes.items())
    return last, deleted


def _purges(project: Project, after: int) -> Iterator[tuple[int, datetime, Mapping[str, set[str]]]]:
    """Each purge with its time and its nodes: of steps, and of the registry."""
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
    yield from ((number, at, nodes) for number, (at, nodes) in sorted(found.items()))


def _naive(at: str) -> datetime:
    """UTC, as Dagster keeps it."""
    return datetime.fromisoformat(at).replace(tzinfo=None)


def wipe(instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: set[str], before: datetime) -> int:
    """Delete the events of these partitions of an asset that are older. How many there were in the index."""
    storage: Any = instance.event_log_storage
    key = asset.to_string()
    deleted = 0
    listed = sorted(partitions)
    for some in (listed[at : at + AT_ONCE] for at in range(0, len(listed), AT_ONCE)):
        mine = and_(log.asset_key == key, log.partition.in_(some), log.timestamp < before)
        with storage.index_connection() as connection:
            _really(connection)
            runs = connection.execute(select(log.run_id).where(mine).distinct()).scalars().all()
            tags = AssetEventTagsTable.c.event_id.in_(select(log.id).where(mine))
            connection.execute(AssetEventTagsTable.delete().where(tags))
            deleted += connection.execute(SqlEventLogStorageTable.delete().where(mine)).rowcount
        for run in runs:
            with storage.run_connection(run) as connection:
                _really(connection)
                connection.execute(SqlEventLogStorageTable.delete().where(mine))
                connection.execute(SqlEventLogStorageTable.delete().where(_said_again(run, asset)))
            instance.compute_log_manager.delete_logs(prefix=[run, "compute_logs"])
    with storage.index_connection() as connection:
        last = AssetKeyTable.update().where(AssetKeyTable.c.asset_key == key)
        connection.execute(last.values(last_materialization=None, cached_status_data=None))
    return deleted


def _said_again(run: str, asset: dg.AssetKey) -> ColumnElement[bool]:
    """In a run of one partition, the step's output repeats what the materialization says, without its partition."""
    return and_(
        log.run_id == run,
        log.step_key == asset.path[-1],
        log.dagster_event_type == "STEP_OUTPUT",
    )


def _really(connection: Any) -> None:
    """What is deleted is overwritten, where that is to be asked for."""
    if connection.dialect.name == "sqlite":
        connection.execute(text("PRAGMA secure_delete=ON"))
