"""⑥ By what bytes of a person are known when they are gone: digests and sizes that tombstones keep."""

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
from ctcore.project import Project
from ctcore.purging.dagsters import Told, told
from ctcore.purging.inside import Inside
from ctcore.purging.leftovers import raw_rows
from ctcore.purging.retold import purges, vouched
from ctcore.reasons import Node, name_of
from ctcore.tombstones import is_purged

BESIDE = "beside"
"""In the body of an event `purge`: digest → size of what was removed beside outputs: sidecars, logs, calls."""


@dataclass(frozen=True)
class Wanted:
    """What is looked for: files by digest (what each is of), and what else tells that a file is of the person.

    Of `beside` others may have the same bytes in places of their own, as two calls may print the same; `raw` may lie at
    `raw_paths`. `events` are those that a purge redacted, with their digests since.
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
    told: Told

    def what(self, digest: str) -> str | None:
        """Of what these bytes are; None where they are nothing of the person's."""
        return self.files.get(digest) or self.raw.get(digest) or self.beside.get(digest)

    @cached_property
    def largest(self) -> int:
        return max(self.sizes, default=0)

    @cached_property
    def ids(self) -> frozenset[str]:
        return frozenset(who for _, who in self.own)


def wanted(project: Project, connection: Connection, found: Inside, patient: str, going: Iterable[int] = ()) -> Wanted:
    """All of a patient that was ever purged, and what is `going`; but not what others have too."""
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
    beside = {digest: size for one in said if one["patient"] == patient for digest, size in one.get(BESIDE, {}).items()}
    sizes |= {digest: row.size for digest, (_, row) in raw.items()} | beside
    shared = _of_others(connection, sizes, found, mine)
    listed = vouched(said)
    chain = connection.execute(select(event.c.digest).where(in_keys(event.c.seq, listed))).scalars()
    versions = {row.data_version for row in rows}
    return Wanted(
        patient,
        found.own,
        found.any_id,
        {digest: what for digest, what in files.items() if digest not in shared},
        {digest: what for digest, (what, _) in raw.items() if digest not in shared},
        dict.fromkeys(beside.keys() - shared, f"a log, call or sidecar of patient/{patient}"),
        frozenset(size for digest, size in sizes.items() if digest not in shared),
        _may_lie(project, connection, patient, [row.path for _, row in raw.values()]),
        frozenset(map(project.located, _paths_of_others(connection, found))),
        listed,
        frozenset(chain),
        told(project, connection, found, frozenset(versions - _live(connection, versions))),
    )


def _may_lie(project: Project, connection: Connection, patient: str, paths: Iterable[str]) -> frozenset[str]:
    """Where the person's raw files may lie: where they are registered, unless a purge took them too."""
    raw = select(purge.c.id).where(purge.c.patient == patient, purge.c.raw)
    went = connection.execute(raw).first() is not None
    return frozenset(() if went else map(project.located, paths))


def _of_others(connection: Connection, digests: Iterable[str], found: Inside, gone: Iterable[int]) -> set[str]:
    """Digests that somebody else's files have, or references: such bytes tell nothing of the person."""
    live = output.join(materialization, materialization.c.id == output.c.materialization)
    there = ~is_purged() & ~in_keys(materialization.c.id, gone)
    queries = [select(output.c.digest).select_from(live).where(in_keys(output.c.digest, digests), there)]
    outside = (reference, reference_version)
    queries += [select(table.c.digest).where(in_keys(table.c.digest, digests)) for table in outside]
    same = {digest for query in queries for digest in connection.execute(query).scalars()}
    raw = select(file.c.digest, entity.c.level, entity.c.id).join(entity, entity.c.seq == file.c.entity)
    rows = connection.execute(raw.where(in_keys(file.c.digest, digests)))
    return same | {row.digest for row in rows if (row.level, row.id) not in found.own}


def _paths_of_others(connection: Connection, found: Inside) -> set[str]:
    rows = connection.execute(
        select(file.c.path, entity.c.level, entity.c.id).join(entity, entity.c.seq == file.c.entity)
    )
    return {path for path, level, who in rows if (level, who) not in found.own}


def _live(connection: Connection, versions: set[str]) -> set[str]:
    made = materialization.c
    rows = select(made.data_version).where(in_keys(made.data_version, versions), ~is_purged())
    return set(connection.execute(rows).scalars())
