"""Lineage in the ledger, up or down along the recorded edges.

A making depends on the content that its edges name: another making of the same node with other bytes is not its source.
A walk is one recursive statement, and two more for its rows, whatever its size.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import CTE, Connection, and_, select, text

from ctcore.catalog.engine import in_keys
from ctcore.catalog.lost_inputs import NOT_MADE
from ctcore.catalog.tables import artifact, edge, materialization
from ctcore.governance.masking import Mask, mask_of
from ctcore.inputs.key import Edge
from ctcore.model.node import Content, Node
from ctcore.project import Project
from ctcore.util.gc import without_collecting


class Making(NamedTuple):
    """One row of the ledger: one making of a node. `current`: it is the node's current making."""

    id: int
    asset: str
    partition: str
    key: str
    recipe: int
    data_version: str
    folder: str
    size: int
    reason: str
    run_id: str | None
    started_at: str
    seconds: float
    current: bool

    @property
    def node(self) -> Node:
        return (self.asset, self.partition)

    @property
    def content(self) -> Content:
        return (self.asset, self.partition, self.data_version)


@dataclass
class Lineage:
    """Makings and the edges into them, as far as a walk reached. Their reasons name nobody without consent."""

    makings: dict[int, Making] = field(default_factory=dict)
    edges: dict[int, list[Edge]] = field(default_factory=dict)

    @cached_property
    def by_content(self) -> Mapping[Content, Sequence[int]]:
        found: dict[Content, list[int]] = defaultdict(list)
        for number in sorted(self.makings):
            found[self.makings[number].content].append(number)
        return found

    def source(self, consumer: int, used: Edge) -> int | None:
        """The making that an edge came from: of those with this content, the last one before its use."""
        found = self.by_content.get(used[1:], ())
        if not found:
            return None
        before = bisect_left(found, consumer)
        return found[before - 1] if before else found[-1]

    def mask_reasons(self, seen: Mask) -> None:
        """Mask the reasons of makings with another mask."""
        if seen:
            told = {number: one._replace(reason=seen.text(one.reason)) for number, one in self.makings.items()}
            self.makings.update(told)

    def sources(self, consumer: int) -> Iterator[int]:
        """The makings that this one was made from, each once."""
        found = (self.source(consumer, used) for used in self.edges.get(consumer, ()))
        yield from dict.fromkeys(one for one in found if one is not None)

    def has_lost_input(self, consumer: int) -> bool:
        """Whether a making names an input of which no making is in the ledger any more."""
        used = (one for one in self.edges.get(consumer, ()) if one.asset not in NOT_MADE)
        return any(one[1:] not in self.by_content for one in used)

    def is_of_lost(self, making: int) -> bool:
        """Whether something that it was made from, at any distance, is lost: nobody can tell who is inside."""
        return any(map(self.has_lost_input, self.reached([making])))

    def reached(self, roots: Iterable[int]) -> dict[int, int]:
        """Every making that the roots come from → its distance to them, nearest first."""
        return distances(roots, self.sources)


def distances(roots: Iterable[int], following: Any) -> dict[int, int]:
    """Breadth first: each number once, with its smallest distance."""
    found = dict.fromkeys(roots, 0)
    waiting = list(found)
    for one in waiting:
        for other in following(one):
            if other not in found:
                found[other] = found[one] + 1
                waiting.append(other)
    return found


def find_cycle(roots: Iterable[int], following: Any) -> list[int]:
    """A way that comes back to where it began, its first member repeated at its end; empty where there is none."""
    done: set[int] = set()
    for root in roots:
        way: dict[int, Iterator[int]] = {}
        one: int | None = root if root not in done else None
        while one is not None:
            if one in way:
                listed = list(way)
                return [*listed[listed.index(one) :], one]
            way[one] = iter(following(one))
            one = _next(way, done)
    return []


def _next(way: dict[int, Iterator[int]], done: set[int]) -> int | None:
    """The next unvisited node, going back along the way if there is none."""
    while way:
        last = next(reversed(way))
        for other in way[last]:
            if other not in done:
                return other
        done.add(last)
        del way[last]
    return None


def walked_ids(connection: Connection, walk: CTE) -> Sequence[int]:
    """The makings of a walk. By indexes, in the order in which its joins are written, also on PostgreSQL: it cannot
    know how long a walk is, and would read a whole table at each step of it."""
    if connection.dialect.name == "postgresql":
        for way in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin"):
            connection.execute(text(f"SET LOCAL {way} = off"))
        connection.execute(text("SET LOCAL join_collapse_limit = 1"))
    found = connection.execute(select(walk.c.id)).scalars().all()
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL join_collapse_limit = DEFAULT"))
    return found


def ancestor_walk(start: CTE) -> CTE:
    """The start, and every making that it was made from."""
    source = materialization.alias()
    same = and_(source.c.asset == edge.c.asset, source.c.partition == edge.c.partition)
    step = (
        select(source.c.id)
        .select_from(start.join(edge, edge.c.materialization == start.c.id).join(source, same))
        .where(source.c.data_version == edge.c.version)
    )
    # UNION and not UNION ALL: a making that was found before is not followed again, so a circle of makings comes to an
    # end.
    return start.union(step)


def descendant_walk(start: CTE) -> CTE:
    """The start, and every making that was made from it."""
    made = start.join(materialization, materialization.c.id == start.c.id)
    return start.union(select(edge.c.materialization).select_from(made.join(edge, same_content())))


def same_content() -> Any:
    """An edge names the content of a making."""
    return and_(
        edge.c.asset == materialization.c.asset,
        edge.c.partition == materialization.c.partition,
        edge.c.version == materialization.c.data_version,
    )


def walk_start(ids: Iterable[int]) -> CTE:
    return select(materialization.c.id).where(in_keys(materialization.c.id, ids)).cte("walk", recursive=True)


def makings(connection: Connection, ids: Iterable[int]) -> dict[int, Making]:
    """The rows of these makings."""
    names = [name for name in Making._fields if name != "current"]
    rows = connection.execute(
        select(*(materialization.c[name] for name in names), artifact.c.materialization.is_not(None))
        .select_from(materialization.outerjoin(artifact, _is_current()))
        .where(in_keys(materialization.c.id, ids))
        .order_by(materialization.c.id)
    )
    return {made.id: made for made in map(Making._make, rows)}


def _is_current() -> Any:
    return and_(
        artifact.c.asset == materialization.c.asset,
        artifact.c.partition == materialization.c.partition,
        artifact.c.materialization == materialization.c.id,
    )


@without_collecting
def _masked(project: Project, found: dict[int, Making]) -> Lineage:
    lineage = Lineage(found)
    lineage.mask_reasons(mask_of(project))
    return lineage


def lineage_of(project: Project, connection: Connection, roots: Iterable[int]) -> Lineage:
    """Everything that these makings were made from, with all edges into each."""
    ids = walked_ids(connection, ancestor_walk(walk_start(roots)))
    found = _masked(project, makings(connection, ids))
    rows = connection.execute(
        select(edge.c.materialization, edge.c.input, edge.c.asset, edge.c.partition, edge.c.version)
        .where(in_keys(edge.c.materialization, ids))
        .order_by(edge.c.materialization, edge.c.input, edge.c.asset, edge.c.partition)
    )
    for number, *used in rows:
        found.edges.setdefault(number, []).append(Edge(*used))
    return found
