"""⑦ What was made, in columns: the current artifact of each node of a step, and what it was made from."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, and_, func, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import artifact, edge
from ctcore.mirror.lists import integers, listed, versions
from ctcore.mirror.ranges import spread
from ctcore.mirror.versions import Places, Short, Whole, nothing
from ctcore.reasons import Node

Role = tuple[str, str]
"""An input's name and the asset that it came from."""
FETCHED = 50_000


Locate = Callable[[str, str], Places]
"""The positions of an asset's partitions, from a list of them; negative for what is not there (any more)."""


@dataclass(frozen=True)
class Used:
    """The inputs of one role as they were used: for node n those at `start[n]` and the next `count[n]`, ascending.

    A negative source is no node of today: `-1 - i` is `strangers[i]`.
    """

    start: Places
    count: Places
    source: Places
    version: Short
    strangers: tuple[Node, ...] = ()

    @classmethod
    def none(cls, nodes: int) -> "Used":
        zeros = np.zeros(nodes, np.int64)
        return cls(zeros, zeros, np.zeros(0, np.int32), np.zeros((0, 2), np.uint64))

    def pairs(self, chosen: Places) -> tuple[Places, Places]:
        """The edges of these nodes: which of the chosen each belongs to, and where the edge lies."""
        return spread(self.start[chosen], self.count[chosen])

    def node(self, role: Role, source: int, name: Callable[[str, int], str]) -> Node:
        return self.strangers[-1 - source] if source < 0 else (role[1], name(role[1], source))

    def with_edges(self, owner: Places, more: "Used") -> "Used":
        """These nodes now have the edges of `more`, in which they are numbered from 0; the old ones are forgotten."""
        start, count = self.start.copy(), self.count.copy()
        start[owner], count[owner] = more.start + len(self.source), more.count
        moved = np.where(more.source < 0, more.source - len(self.strangers), more.source)
        return Used(
            start,
            count,
            np.concatenate((self.source, moved.astype(np.int32))),
            np.concatenate((self.version, more.version)),
            self.strangers + more.strangers,
        )

    def compact(self) -> "Used":
        """Without the edges that are forgotten."""
        _, place = self.pairs(np.arange(len(self.start)))
        start = np.cumsum(self.count) - self.count
        return replace(self, start=start, source=self.source[place], version=self.version[place])

    def grown(self, nodes: int) -> "Used":
        more = np.zeros(nodes - len(self.start), np.int64)
        return replace(self, start=np.concatenate((self.start, more)), count=np.concatenate((self.count, more)))


@dataclass(frozen=True)
class Made:
    """One step, by position: materialization and recipe (0: never made), data version, what was used by role."""

    materialization: Places
    recipe: Places
    version: Whole
    used: Mapping[Role, Used]

    @classmethod
    def none(cls, nodes: int) -> "Made":
        return cls(np.zeros(nodes, np.int64), np.zeros(nodes, np.int32), nothing(nodes), {})

    def grown(self, nodes: int) -> "Made":
        """With room for nodes that were registered since."""
        more = nodes - len(self.recipe)
        return Made(
            np.concatenate((self.materialization, np.zeros(more, np.int64))),
            np.concatenate((self.recipe, np.zeros(more, np.int32))),
            np.concatenate((self.version, nothing(more))),
            {role: used.grown(nodes) for role, used in self.used.items()},
        )


def load_made(
    connection: Connection, step: str, nodes: int, locate: Locate, known: Made | None = None, keys: Iterable[str] = ()
) -> tuple[Made, Places]:
    """A step's current artifacts with their edges, and which positions these are.

    With `known`, only those of `keys` are read, and all else stays as it is known.
    """
    dialect = connection.dialect.name
    mine = artifact.c.asset == step
    if known is not None:
        mine = and_(mine, in_keys(artifact.c.partition, keys))
    fields = (artifact.c.partition, artifact.c.materialization, artifact.c.recipe, artifact.c.data_version)
    row = connection.execute(select(*(listed(field, dialect) for field in fields)).where(mine)).one()
    numbers = integers(row[1])
    order = np.argsort(numbers)
    place, numbers = locate(step, row[0])[order], numbers[order]
    here = place >= 0
    made = known or Made.none(nodes)
    materialization, recipe, version = made.materialization.copy(), made.recipe.copy(), made.version.copy()
    materialization[place[here]] = numbers[here]
    recipe[place[here]] = integers(row[2])[order][here]
    version[place[here]] = versions(row[3])[order][here]
    found = _edges(connection, numbers, locate)
    kept = {role: used.grown(nodes) for role, used in made.used.items()}
    empty = Used.none(len(place))
    for role in {*kept, *found}:
        used = kept.get(role) or Used.none(nodes)
        more = found.get(role, empty)
        some = replace(more, start=more.start[here], count=more.count[here])
        kept[role] = used.with_edges(place[here], some)
    return Made(materialization, recipe, version, kept), place[here]


def _edges(connection: Connection, numbers: Places, locate: Locate) -> dict[Role, Used]:
    """The edges of some artifacts by role; `numbers` are their materializations, ascending."""
    parts: dict[Role, list[tuple[Places, Places, Short]]] = {}
    strangers: dict[Role, list[Node]] = {}
    at, size = 0, 1  # one may have a single edge, or one for each assay: those that were read say how many to read next
    while at < len(numbers):
        for role, (owner, partitions, texts) in _by_role(connection, numbers[at : at + size], tuple(parts)).items():
            source = _sources(role, partitions, locate)
            if len(unknown := np.flatnonzero(source < 0)):
                names, known = json.loads(partitions), strangers.setdefault(role, [])
                source[unknown] = -1 - len(known) - np.arange(len(unknown))
                known.extend((role[1], names[place]) for place in unknown.tolist())
            parts.setdefault(role, []).append((owner, source, versions(texts)[:, :2].copy()))
        at += size
        edges = sum(len(part[0]) for some in parts.values() for part in some)
        size = max(1, FETCHED * at // max(1, edges))
    return {role: _used(some, numbers, tuple(strangers.get(role, ()))) for role, some in parts.items()}


def _by_role(connection: Connection, numbers: Places, roles: Sequence[Role]) -> dict[Role, tuple[Places, str, str]]:
    """The edges of these materializations by role: whose each is, and lists of source partitions and versions.

    Where no others than the expected roles are there, the database need not sort by role.
    """
    dialect = connection.dialect.name
    mine = in_keys(edge.c.materialization, numbers.tolist())
    first, last = int(numbers[0]), int(numbers[-1])
    if last - first == len(numbers) - 1:
        mine = edge.c.materialization.between(first, last) if last > first else edge.c.materialization == first
    fields = (edge.c.materialization, edge.c.partition, edge.c.version)
    are = [and_(edge.c.input == role[0], edge.c.asset == role[1]) for role in roles]
    lists = [listed(field, dialect, one) for one in are for field in fields]
    edges, *texts = connection.execute(select(func.count(), *lists).where(mine)).one() if roles else (1,)
    owners = [integers(text) for text in texts[::3]]
    if edges == sum(map(len, owners)):
        return dict(zip(roles, zip(owners, texts[1::3], texts[2::3], strict=True), strict=True))
    by_role = (edge.c.input, edge.c.asset)
    found: Select[*tuple[Any, ...]] = select(*by_role, *(listed(field, dialect) for field in fields))
    rows = connection.execute(found.where(mine).group_by(*by_role))
    return {(row[0], row[1]): (integers(row[2]), row[3], row[4]) for row in rows}


def _sources(role: Role, partitions: str, locate: Locate) -> NDArray[np.int32]:
    """An input that is a reference has one source, the reference it is named after."""
    if role[1] != "reference":
        return locate(role[1], partitions).astype(np.int32)
    mine = role[0].removeprefix("reference:")
    return np.array([0 if key == mine else -1 for key in json.loads(partitions)], np.int32)


def _used(parts: list[tuple[Places, Places, Short]], numbers: Places, strangers: tuple[Node, ...]) -> Used:
    owner = np.searchsorted(numbers, np.concatenate([part[0] for part in parts]))
    source = np.concatenate([part[1] for part in parts])
    version = np.concatenate([part[2] for part in parts])
    order = np.argsort((owner << 32) + source, kind="stable")  # they mostly are in order, which this sees
    count = np.bincount(owner, minlength=len(numbers))
    return Used(np.cumsum(count) - count, count, source[order], version[order], strangers)
