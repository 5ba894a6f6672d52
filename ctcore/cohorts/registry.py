"""Registry nodes: patients, specimens, assays and references. Their data versions cover their declared values."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import delete, select

from ctcore.catalog.engine import in_keys, upsert
from ctcore.catalog.tables import entity, file, reference, reported, request
from ctcore.governance.access import missing_consents
from ctcore.project import Project
from ctcore.steps.graph import REGISTRY
from ctcore.store.digest import digest_value
from ctcore.util.clock import today


@dataclass(frozen=True)
class RegistryNode:
    """A registry node: its declared values and their digest. `excluded`: why its values are hidden."""

    asset: str
    partition: str
    data_version: str
    declared: Mapping[str, Any]
    parent: str | None = None
    excluded: str | None = None


def entries(project: Project, asset: str, keys: Iterable[str] | None = None) -> list[RegistryNode]:
    """The registry nodes of one asset, in the order of the cohort. Values of people without consent are hidden."""
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
        hidden = missing_consents(connection, today(), project.settings.uses.required)
    found = [_entry(asset, row.id, row.parent_id, json.loads(row.attributes), files.get(row.seq, {})) for row in rows]
    for at, one in enumerate(found):
        if why := hidden.get((asset, one.partition)):
            found[at] = replace(one, declared=_NOTHING, excluded=why.words)
    return found


_NOTHING: Mapping[str, Any] = {"attributes": {}, "files": {}}


def _entry(
    asset: str, partition: str, parent: str | None, attributes: dict[str, Any], files: dict[str, Any]
) -> RegistryNode:
    # Digests and no paths: a file that was only moved gives Dagster no new data version.
    identity = {
        "level": asset,
        "id": partition,
        "parent": parent,
        "attributes": attributes,
        "files": {role: one["digest"] for role, one in files.items()},
    }
    declared = {"attributes": attributes, "files": files}
    return RegistryNode(asset, partition, digest_value("ct.entity.v1", identity), declared, parent)


def _references(project: Project, keys: Iterable[str] | None) -> list[RegistryNode]:
    wanted = None if keys is None else set(keys)
    with project.catalog.read() as connection:
        rows = connection.execute(select(reference).order_by(reference.c.key)).mappings().all()
    return [
        RegistryNode(
            "reference",
            row["key"],
            digest_value("ct.reference.v1", {"version": row["version"], "content": row["digest"]}),
            {"attributes": {"version": row["version"], "kind": row["kind"]}, "files": {"file": dict(row)}},
        )
        for row in rows
        if wanted is None or row["key"] in wanted
    ]


def unreported_nodes(project: Project) -> dict[str, list[str]]:
    """Registry nodes whose current version Dagster does not know: asset → partitions. Purged people are left out."""
    with project.catalog.read() as connection:
        told = {(row.asset, row.partition): row.data_version for row in connection.execute(select(reported))}
    found: dict[str, list[str]] = {}
    for asset in REGISTRY:
        gone = purged_ids(project, asset)
        listed = [one for one in entries(project, asset) if one.partition not in gone]
        new = [one.partition for one in listed if told.get((asset, one.partition)) != one.data_version]
        if new:
            found[asset] = new
    return found


def purged_ids(project: Project, level: str) -> set[str]:
    """The IDs of purged entities. Dagster gets no event of them, whatever range a run covers."""
    gone = select(entity.c.id).where(entity.c.level == level, entity.c.purged.is_not(None))
    with project.catalog.read() as connection:
        return set(connection.execute(gone).scalars())


def mark_reported(project: Project, told: Iterable[RegistryNode]) -> None:
    """Dagster has the events of these entries."""
    with project.catalog.write() as writer:
        rows = [{"asset": one.asset, "partition": one.partition, "data_version": one.data_version} for one in told]
        upsert(writer, reported, rows)
        for asset in {row["asset"] for row in rows}:
            keys = [row["partition"] for row in rows if row["asset"] == asset]
            writer.execute(delete(request).where(request.c.asset == asset, in_keys(request.c.partition, keys)))
