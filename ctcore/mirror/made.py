"""⑦ What was made, in columns: the current artifact of each node of a step, and what it was made from."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
from sqlalchemy import ColumnElement, Connection, and_, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import artifact, edge
from ctcore.mirror.ranges import spread
from ctcore.mirror.versions import Places, Short, Whole, nothing, packed
from ctcore.reasons import Node

Role = tuple[str, str]
"""An input's name and the asset that it came from."""
FETCHED = 50_000


class Cursor(Protocol):
    """What is needed of a driver's cursor."""

    def fetchmany(self, size: int, /) -> Sequence[Any]: ...


Locate = Callable[[str, Sequence[str]], list[int]]
"""The positions of an asset's partitions; negative for what is not there (any more)."""


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
    mine = artifact.c.asset == step
    if known is not None:
        mine = and_(mine, in_keys(artifact.c.partition, keys, connection.dialect.name))
    fields = (artifact.c.partition, artifact.c.materialization, artifact.c.recipe, artifact.c.data_version)
    rows = connection.execute(select(*fields).where(mine).order_by(artifact.c.materialization)).all()
    partitions, numbers, recipes, versions = zip(*rows, strict=True) if rows else ((), (), (), ())
    place = np.array(locate(step, partitions), np.int64)
    here = place >= 0
    made = known or Made.none(nodes)
    materialization, recipe, version = made.materialization.copy(), made.recipe.copy(), made.version.copy()
    materialization[place[here]] = np.array(numbers, np.int64)[here]
    recipe[place[here]] = np.array(recipes, np.int32)[here]
    version[place[here]] = packed(versions)[here]
    found = _edges(connection, mine, np.array(numbers, np.int64), locate)
    kept = {role: used.grown(nodes) for role, used in made.used.items()}
    empty = Used.none(len(place))
    for role in {*kept, *found}:
        used = kept.get(role) or Used.none(nodes)
        more = found.get(role, empty)
        some = Used(more.start[here], more.count[here], more.source, more.version, more.strangers)
        kept[role] = used.with_edges(place[here], some)
    return Made(materialization, recipe, version, kept), place[here]


def _edges(connection: Connection, mine: ColumnElement[bool], numbers: Places, locate: Locate) -> dict[Role, Used]:
    """The edges of some artifacts by role; `numbers` are their materializations, ascending."""
    statement = (
        select(edge.c.materialization, edge.c.input, edge.c.asset, edge.c.partition, edge.c.version)
        .select_from(artifact.join(edge, edge.c.materialization == artifact.c.materialization))
        .where(mine)
    )
    parts: dict[Role, list[tuple[Places, Places, Short]]] = {}
    strangers: dict[Role, list[Node]] = {}
    cursor = _raw(connection, statement)
    while rows := cursor.fetchmany(FETCHED):
        for role, (owner, partitions, versions) in _by_role(rows).items():
            source = np.array(_sources(role, partitions, locate), np.int32)
            unknown = np.flatnonzero(source < 0)
            listed = strangers.setdefault(role, [])
            for at in unknown.tolist():
                listed.append((role[1], partitions[at]))
                source[at] = -len(listed)
            whole = packed(versions)
            parts.setdefault(role, []).append((owner, source, whole[:, :2].copy()))
    return {role: _used(some, numbers, tuple(strangers[role])) for role, some in parts.items()}


def _sources(role: Role, partitions: Sequence[str], locate: Locate) -> list[int]:
    """An input that is a reference has one source, the reference it is named after."""
    if role[1] == "reference":
        return [0 if role[0] == f"reference:{key}" else -1 for key in partitions]
    return locate(role[1], partitions)


def _by_role(rows: Sequence[tuple[int, str, str, str, str]]) -> dict[Role, tuple[Places, Sequence[str], Sequence[str]]]:
    """Materializations, source partitions and versions of the edges, by role."""
    numbers, inputs, assets, partitions, versions = zip(*rows, strict=True)
    owner = np.array(numbers, np.int64)
    codes: dict[Role, int] = {}
    coded = np.array([codes.setdefault(role, len(codes)) for role in zip(inputs, assets, strict=True)], np.int32)
    if len(codes) == 1:
        return {next(iter(codes)): (owner, partitions, versions)}
    found = {}
    for role, code in codes.items():
        mine = np.flatnonzero(coded == code)
        pick = itemgetter(*mine.tolist(), 0)  # always two or more, so that it gives a tuple
        found[role] = (owner[mine], pick(partitions)[:-1], pick(versions)[:-1])
    return found


def _used(parts: list[tuple[Places, Places, Short]], numbers: Places, strangers: tuple[Node, ...]) -> Used:
    owner = np.searchsorted(numbers, np.concatenate([part[0] for part in parts]))
    source = np.concatenate([part[1] for part in parts])
    version = np.concatenate([part[2] for part in parts])
    order = np.lexsort((source, owner))
    count = np.bincount(owner, minlength=len(numbers))
    return Used(np.cumsum(count) - count, count, source[order], version[order], strangers)


def _raw(connection: Connection, statement: Any) -> Cursor:
    """SQLite's own cursor: SQLAlchemy's rows take as long as reading them. PostgreSQL sends a part at a time."""
    if connection.dialect.name != "sqlite":
        return connection.execute(statement, execution_options={"stream_results": True, "max_row_buffer": FETCHED})
    compiled = statement.compile(dialect=connection.dialect)
    given = tuple(compiled.params[name] for name in compiled.positiontup or ())
    cursor: Any = connection.exec_driver_sql(str(compiled), given).cursor
    return cursor
