"""Current artifacts in columns: one for each node of a step, with the inputs it was made from."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, and_, func, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import artifact, edge
from ctcore.model.node import Node
from ctcore.snapshot.arrays import group_members
from ctcore.snapshot.json_columns import integers, json_list, versions
from ctcore.snapshot.versions import Places, Short, Whole, no_versions

Role = tuple[str, str]
"""An input's name and the asset that it came from."""
FETCHED = 50_000


Locate = Callable[[str, str], Places]
"""The positions of an asset's partitions, from a list of them; negative for what is not there (any more)."""


@dataclass(frozen=True)
class UsedInputs:
    """The inputs of one role as they were used: for node n those at `start[n]` and the next `count[n]`, ascending.

    A negative source is no node of today: `-1 - i` is `unregistered[i]`.
    """

    start: Places
    count: Places
    source: Places
    version: Short
    unregistered: tuple[Node, ...] = ()

    @classmethod
    def none(cls, nodes: int) -> "UsedInputs":
        zeros = np.zeros(nodes, np.int64)
        return cls(zeros, zeros, np.zeros(0, np.int32), np.zeros((0, 2), np.uint64))

    def pairs(self, chosen: Places) -> tuple[Places, Places]:
        """The edges of these nodes: which of the chosen each belongs to, and where the edge lies."""
        return group_members(self.start[chosen], self.count[chosen])

    def node(self, role: Role, source: int, name: Callable[[str, int], str]) -> Node:
        return self.unregistered[-1 - source] if source < 0 else (role[1], name(role[1], source))

    def with_edges(self, owner: Places, more: "UsedInputs") -> "UsedInputs":
        """These nodes now have the edges of `more`, in which they are numbered from 0; the old ones are forgotten."""
        start, count = self.start.copy(), self.count.copy()
        # The old edges stay where they are, and nothing points to them any more: only `compact` takes them out.
        start[owner], count[owner] = more.start + len(self.source), more.count
        moved = np.where(more.source < 0, more.source - len(self.unregistered), more.source)
        return UsedInputs(
            start,
            count,
            np.concatenate((self.source, moved.astype(np.int32))),
            np.concatenate((self.version, more.version)),
            self.unregistered + more.unregistered,
        )

    def compact(self) -> "UsedInputs":
        """Without the edges that are forgotten."""
        _, place = self.pairs(np.arange(len(self.start)))
        start = np.cumsum(self.count) - self.count
        return replace(self, start=start, source=self.source[place], version=self.version[place])

    def with_room(self, nodes: int) -> "UsedInputs":
        more = np.zeros(nodes - len(self.start), np.int64)
        return replace(self, start=np.concatenate((self.start, more)), count=np.concatenate((self.count, more)))


@dataclass(frozen=True)
class StepArtifacts:
    """One step, by position: materialization and recipe (0: never made), data version, and used inputs by role."""

    materialization: Places
    recipe: Places
    version: Whole
    used: Mapping[Role, UsedInputs]

    @classmethod
    def none(cls, nodes: int) -> "StepArtifacts":
        return cls(np.zeros(nodes, np.int64), np.zeros(nodes, np.int32), no_versions(nodes), {})

    def with_room(self, nodes: int) -> "StepArtifacts":
        """With room for nodes that were registered since."""
        more = nodes - len(self.recipe)
        return StepArtifacts(
            np.concatenate((self.materialization, np.zeros(more, np.int64))),
            np.concatenate((self.recipe, np.zeros(more, np.int32))),
            np.concatenate((self.version, no_versions(more))),
            {role: used.with_room(nodes) for role, used in self.used.items()},
        )


def load_made(
    connection: Connection,
    step: str,
    nodes: int,
    locate: Locate,
    known: StepArtifacts | None = None,
    keys: Iterable[str] = (),
) -> tuple[StepArtifacts, Places]:
    """A step's current artifacts with their edges, and their positions.

    With `known`, only those of `keys` are read; the rest is taken over.
    """
    dialect = connection.dialect.name
    mine = artifact.c.asset == step
    if known is not None:
        mine = and_(mine, in_keys(artifact.c.partition, keys))
    fields = (artifact.c.partition, artifact.c.materialization, artifact.c.recipe, artifact.c.data_version)
    row = connection.execute(select(*(json_list(field, dialect) for field in fields)).where(mine)).one()
    numbers = integers(row[1])
    order = np.argsort(numbers)
    place, numbers = locate(step, row[0])[order], numbers[order]
    here = place >= 0
    made = known or StepArtifacts.none(nodes)
    materialization, recipe, version = made.materialization.copy(), made.recipe.copy(), made.version.copy()
    materialization[place[here]] = numbers[here]
    recipe[place[here]] = integers(row[2])[order][here]
    version[place[here]] = versions(row[3])[order][here]
    found = _edges(connection, numbers, locate)
    kept = {role: used.with_room(nodes) for role, used in made.used.items()}
    empty = UsedInputs.none(len(place))
    for role in {*kept, *found}:
        used = kept.get(role) or UsedInputs.none(nodes)
        more = found.get(role, empty)
        some = replace(more, start=more.start[here], count=more.count[here])
        kept[role] = used.with_edges(place[here], some)
    return StepArtifacts(materialization, recipe, version, kept), place[here]


def _edges(connection: Connection, numbers: Places, locate: Locate) -> dict[Role, UsedInputs]:
    """The edges of some artifacts by role; `numbers` are their materializations, ascending."""
    parts: dict[Role, list[tuple[Places, Places, Short]]] = {}
    unregistered: dict[Role, list[Node]] = {}
    at, size = 0, 1  # one may have a single edge, or one for each assay: those that were read say how many to read next
    while at < len(numbers):
        for role, (owner, partitions, texts) in _by_role(connection, numbers[at : at + size], tuple(parts)).items():
            source = _sources(role, partitions, locate)
            if len(unknown := np.flatnonzero(source < 0)):
                names, known = json.loads(partitions), unregistered.setdefault(role, [])
                source[unknown] = -1 - len(known) - np.arange(len(unknown))
                known.extend((role[1], names[place]) for place in unknown.tolist())
            parts.setdefault(role, []).append((owner, source, versions(texts)[:, :2].copy()))
        at += size
        edges = sum(len(part[0]) for some in parts.values() for part in some)
        size = max(1, FETCHED * at // max(1, edges))
    return {role: _used(some, numbers, tuple(unregistered.get(role, ()))) for role, some in parts.items()}


def _by_role(connection: Connection, numbers: Places, roles: Sequence[Role]) -> dict[Role, tuple[Places, str, str]]:
    """The edges of these materializations by role: whose each is, and lists of source partitions and versions.

    Where no others than the expected roles are there, the database need not sort by role.
    """
    dialect = connection.dialect.name
    mine = in_keys(edge.c.materialization, numbers.tolist())
    first, last = int(numbers[0]), int(numbers[-1])
    # Without gaps, one range of the primary key: a list of as many numbers would be looked up one by one.
    if last - first == len(numbers) - 1:
        mine = edge.c.materialization.between(first, last) if last > first else edge.c.materialization == first
    fields = (edge.c.materialization, edge.c.partition, edge.c.version)
    are = [and_(edge.c.input == role[0], edge.c.asset == role[1]) for role in roles]
    lists = [json_list(field, dialect, one) for one in are for field in fields]
    edges, *texts = connection.execute(select(func.count(), *lists).where(mine)).one() if roles else (1,)
    owners = [integers(text) for text in texts[::3]]
    if edges == sum(map(len, owners)):
        return dict(zip(roles, zip(owners, texts[1::3], texts[2::3], strict=True), strict=True))
    by_role = (edge.c.input, edge.c.asset)
    found: Select[*tuple[Any, ...]] = select(*by_role, *(json_list(field, dialect) for field in fields))
    rows = connection.execute(found.where(mine).group_by(*by_role))
    return {(row[0], row[1]): (integers(row[2]), row[3], row[4]) for row in rows}


def _sources(role: Role, partitions: str, locate: Locate) -> NDArray[np.int32]:
    """An input that is a reference has one source, the reference it is named after."""
    if role[1] != "reference":
        return locate(role[1], partitions).astype(np.int32)
    mine = role[0].removeprefix("reference:")
    return np.array([0 if key == mine else -1 for key in json.loads(partitions)], np.int32)


def _used(parts: list[tuple[Places, Places, Short]], numbers: Places, unregistered: tuple[Node, ...]) -> UsedInputs:
    owner = np.searchsorted(numbers, np.concatenate([part[0] for part in parts]))
    source = np.concatenate([part[1] for part in parts])
    version = np.concatenate([part[2] for part in parts])
    # Sources have 32 bits with a sign, so a negative one stays behind the sources of the owner before. The edges mostly
    # are in order, which a stable sort uses (Timsort for 64 bits; numpy.org, numpy.sort).
    order = np.argsort((owner << 32) + source, kind="stable")
    count = np.bincount(owner, minlength=len(numbers))
    return UsedInputs(np.cumsum(count) - count, count, source[order], version[order], unregistered)
