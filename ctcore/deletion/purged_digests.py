"""Digests and sizes of purged content, by which a search recognizes copies of it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from sqlalchemy import Connection, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import (
    entity,
    event,
    file,
    materialization,
    output,
    purge,
    reference,
    reference_version,
    tombstone,
)
from ctcore.catalog.tombstones import is_purged
from ctcore.deletion.dagster_storage import PurgedNodes, purged_nodes
from ctcore.deletion.leftovers import raw_rows
from ctcore.deletion.raw_folders import MEMBERS, folder_listings
from ctcore.deletion.redacted_events import purges
from ctcore.lineage.containment import Containment
from ctcore.model.node import Node, name_of
from ctcore.project import Project

BESIDE = "beside"
"""Key in the body of an event `purge`: digest → size of removed sidecars, logs and calls."""


@dataclass(frozen=True)
class PurgedContent:
    """What a search looks for. `files`, `raw`, `beside`: digest → description, of outputs, raw files (of a folder, each
    file in it) and other files.

    Files of other people may equal those of `beside`, because two calls may print the same. Raw files may stay at
    `raw_paths`. `events`: redacted events with their digests since; `chain`: digests that the next events refer to.
    """

    patient: str
    own: frozenset[Node]
    any_id: re.Pattern[str]
    files: Mapping[str, str]
    raw: Mapping[str, str]
    beside: Mapping[str, str]
    sizes: frozenset[int]
    raw_paths: frozenset[str]
    others_raw: frozenset[str]
    events: Mapping[int, str]
    chain: frozenset[str] = field(repr=False)
    dagster_nodes: PurgedNodes

    def description_of(self, digest: str) -> str | None:
        """The description of content with this digest; None where it is not the person's."""
        return self.files.get(digest) or self.raw.get(digest) or self.beside.get(digest)

    @cached_property
    def largest(self) -> int:
        return max(self.sizes, default=0)

    @cached_property
    def ids(self) -> frozenset[str]:
        return frozenset(who for _, who in self.own)


def purged_content(
    project: Project, connection: Connection, found: Containment, patient: str, going: Iterable[int] = ()
) -> PurgedContent:
    """All purged content of a patient, and that of the makings `going`, except content that other people have too."""
    stones = select(tombstone.c.materialization).join(purge, purge.c.id == tombstone.c.purge)
    mine = {*going, *connection.execute(stones.where(purge.c.patient == patient)).scalars()}
    made = materialization.c
    rows = connection.execute(
        select(made.asset, made.partition, made.data_version, output.c.file, output.c.digest, output.c.size)
        .select_from(output)
        .join(materialization, made.id == output.c.materialization)
        .where(in_keys(made.id, mine), output.c.size > 0)
    ).all()
    files = {row.digest: f"{name_of((row.asset, row.partition))} {row.file}" for row in rows}
    sizes = {row.digest: row.size for row in rows}
    raw = {row.digest: (f"{row.level}/{row.id} {row.role}", row) for row in raw_rows(connection, found) if row.size}
    said = purges(connection)
    listings = folder_listings(project, connection, found)
    inside = [listings.files(), *(one.get(MEMBERS, {}) for one in said.bodies if one["patient"] == patient)]
    members = {digest: what for some in inside for what, files in some.items() for digest in files}
    beside = {
        digest: size for one in said.bodies if one["patient"] == patient for digest, size in one.get(BESIDE, {}).items()
    }
    sizes |= {digest: row.size for digest, (_, row) in raw.items()} | beside
    sizes |= {digest: size for some in inside for files in some.values() for digest, size in files.items()}
    known_raw = {digest: what for digest, (what, _) in raw.items()} | members
    shared = _of_others(connection, sizes, found, mine) | listings.of_others(members.keys())
    chain = connection.execute(select(event.c.digest).where(in_keys(event.c.seq, said.listed))).scalars()
    versions = {row.data_version for row in rows}
    return PurgedContent(
        patient,
        found.own,
        found.any_id,
        {digest: what for digest, what in files.items() if digest not in shared},
        {digest: what for digest, what in known_raw.items() if digest not in shared},
        dict.fromkeys(beside.keys() - shared, f"a log, call or sidecar of patient/{patient}"),
        frozenset(size for digest, size in sizes.items() if digest not in shared),
        _may_lie(project, connection, patient, [row.path for _, row in raw.values()]),
        frozenset(map(project.located, _paths_of_others(connection, found))),
        said.listed,
        frozenset(chain),
        purged_nodes(project, connection, found, frozenset(versions - _live(connection, versions))),
    )


def _may_lie(project: Project, connection: Connection, patient: str, paths: Iterable[str]) -> frozenset[str]:
    """Where the person's raw files may lie: where they are registered, unless a purge took them too."""
    raw = select(purge.c.id).where(purge.c.patient == patient, purge.c.raw)
    went = connection.execute(raw).first() is not None
    return frozenset(() if went else map(project.located, paths))


def _of_others(connection: Connection, digests: Iterable[str], found: Containment, gone: Iterable[int]) -> set[str]:
    """Digests that files of other people or references have too: such content does not identify the person."""
    live = output.join(materialization, materialization.c.id == output.c.materialization)
    there = ~is_purged() & ~in_keys(materialization.c.id, gone)
    queries = [select(output.c.digest).select_from(live).where(in_keys(output.c.digest, digests), there)]
    outside = (reference, reference_version)
    queries += [select(table.c.digest).where(in_keys(table.c.digest, digests)) for table in outside]
    same = {digest for query in queries for digest in connection.execute(query).scalars()}
    raw = select(file.c.digest, entity.c.level, entity.c.id).join(entity, entity.c.seq == file.c.entity)
    rows = connection.execute(raw.where(in_keys(file.c.digest, digests)))
    return same | {row.digest for row in rows if (row.level, row.id) not in found.own}


def _paths_of_others(connection: Connection, found: Containment) -> set[str]:
    rows = connection.execute(
        select(file.c.path, entity.c.level, entity.c.id).join(entity, entity.c.seq == file.c.entity)
    )
    return {path for path, level, who in rows if (level, who) not in found.own}


def _live(connection: Connection, versions: set[str]) -> set[str]:
    made = materialization.c
    rows = select(made.data_version).where(in_keys(made.data_version, versions), ~is_purged())
    return set(connection.execute(rows).scalars())
