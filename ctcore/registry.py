"""② Registry nodes: patients, specimens, assays and references, with a data version of what is declared of each."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import delete, select

from ctcore.catalog.engine import in_keys, upsert
from ctcore.catalog.tables import entity, file, reference, reported, request
from ctcore.clock import today
from ctcore.digest import digest_value
from ctcore.policy import withheld
from ctcore.project import Project
from ctcore.steps import REGISTRY


@dataclass(frozen=True)
class Entry:
    """A registry node: what is declared of it, and the digest of that. `excluded`: why nothing is told of it."""

    asset: str
    partition: str
    data_version: str
    declared: Mapping[str, Any]
    parent: str | None = None
    excluded: str | None = None


def entries(project: Project, asset: str, keys: Iterable[str] | None = None) -> list[Entry]:
    """The registry nodes of one asset, in the order of the cohort. Of those without consent, nothing is told."""
    if asset == "reference":
        return _references(project, keys)
    parent = entity.alias()
    wanted = entity.c.level == asset
    if keys is not None:
        wanted &= in_keys(entity.c.id, keys)
    with project.catalog.read() as connection:
        rows = connection.execute(
            select(entity, parent.c.id.label("parent_id"))
            .select_from(entity.outerjoin(parent, parent.c.seq == entity.c.parent))
            .where(wanted)
            .order_by(entity.c.seq)
        ).all()
        files: dict[int, dict[str, Any]] = {}
        for row in connection.execute(select(file).join(entity, entity.c.seq == file.c.entity).where(wanted)):
            files.setdefault(row.entity, {})[row.role] = {
                "path": row.path,
                "digest": row.digest,
                "size": row.size,
            }
        hidden = withheld(connection, today(), project.settings.uses.required)
    found = [_entry(asset, row.id, row.parent_id, json.loads(row.attributes), files.get(row.seq, {})) for row in rows]
    for at, one in enumerate(found):
        if why := hidden.get((asset, one.partition)):
            found[at] = replace(one, declared=_NOTHING, excluded=why.words)
    return found


_NOTHING: Mapping[str, Any] = {"attributes": {}, "files": {}}


def _entry(asset: str, partition: str, parent: str | None, attributes: dict[str, Any], files: dict[str, Any]) -> Entry:
    identity = {
        "level": asset,
        "id": partition,
        "parent": parent,
        "attributes": attributes,
        "files": {role: one["digest"] for role, one in files.items()},
    }
    declared = {"attributes": attributes, "files": files}
    return Entry(asset, partition, digest_value("ct.entity.v1", identity), declared, parent)


def _references(project: Project, keys: Iterable[str] | None) -> list[Entry]:
    wanted = None if keys is None else set(keys)
    with project.catalog.read() as connection:
        rows = connection.execute(select(reference).order_by(reference.c.key)).mappings().all()
    return [
        Entry(
            "reference",
            row["key"],
            digest_value("ct.reference.v1", {"version": row["version"], "content": row["digest"]}),
            {"attributes": {"version": row["version"], "kind": row["kind"]}, "files": {"file": dict(row)}},
        )
        for row in rows
        if wanted is None or row["key"] in wanted
    ]


def unreported(project: Project) -> dict[str, list[str]]:
    """Registry nodes of which Dagster was not told what they are now: asset → partitions. Never somebody purged."""
    gone = select(entity.c.level, entity.c.id).where(entity.c.purged.is_not(None))
    with project.catalog.read() as connection:
        told = {(row.asset, row.partition): row.data_version for row in connection.execute(select(reported))}
        purged = {(row.level, row.id) for row in connection.execute(gone)}
    found: dict[str, list[str]] = {}
    for asset in REGISTRY:
        listed = [one for one in entries(project, asset) if (asset, one.partition) not in purged]
        new = [one.partition for one in listed if told.get((asset, one.partition)) != one.data_version]
        if new:
            found[asset] = new
    return found


def mark_reported(project: Project, told: Iterable[Entry]) -> None:
    """Dagster has the events of these entries."""
    with project.catalog.write() as writer:
        rows = [{"asset": one.asset, "partition": one.partition, "data_version": one.data_version} for one in told]
        upsert(writer, reported, rows)
        for asset in {row["asset"] for row in rows}:
            keys = [row["partition"] for row in rows if row["asset"] == asset]
            writer.execute(delete(request).where(request.c.asset == asset, in_keys(request.c.partition, keys)))
