"""Inputs that makings in the ledger name, and that the catalog does not know: the source was lost with the catalog.

Nobody can tell who is inside a source that was lost. Only a recovery leaves such inputs, and they are known again once
the same content is made again.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, or_, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import edge, entity, event, materialization, member
from ctcore.model.levels import ENTITY_LEVELS, LEVELS
from ctcore.model.node import Content

NOT_MADE = (*LEVELS, "reference")
"""What an edge may name beside a step."""


def lost_sources(connection: Connection) -> dict[str, set[str]]:
    """Step → its partitions of which a lost making was used."""
    found: dict[str, set[str]] = {}
    # Asked first: without a recovery nothing is lost, and the look through all edges would be for nothing.
    if was_recovered(connection):
        for asset, partition in connection.execute(select(edge.c.asset, edge.c.partition).where(_is_lost()).distinct()):
            found.setdefault(asset, set()).add(partition)
    return found


def lost_among(connection: Connection, inputs: Iterable[Content]) -> set[Content]:
    """Which of these inputs the catalog does not know: contents that no making has, entities that are not registered.

    A statement for each step or level that they are of.
    """
    of: dict[str, set[Content]] = defaultdict(set)
    for one in inputs:
        of[one[0]].add(one)
    made, found = materialization.c, set[Content]()
    for asset, some in of.items():
        names = {partition for _, partition, _ in some}
        if asset in ENTITY_LEVELS:
            rows = select(entity.c.id).where(entity.c.level == asset, in_keys(entity.c.id, names))
            known = set(connection.execute(rows).scalars())
            found |= {one for one in some if one[1] not in known}
        elif asset not in NOT_MADE:
            rows = select(made.asset, made.partition, made.data_version)
            found |= some - set(
                map(tuple, connection.execute(rows.where(made.asset == asset, in_keys(made.partition, names))))
            )
    return found


def makings_of_lost_inputs(connection: Connection, steps: Iterable[tuple[str, str]]) -> set[int]:
    """Makings with an input or a member that the catalog does not know, and those of an entity that it does not know.

    `steps`: the steps of today, each with its level.
    """
    if not was_recovered(connection):
        return set()
    nobody = and_(edge.c.asset.in_(ENTITY_LEVELS), ~_is_registered(edge.c.asset, edge.c.partition))
    asked: list[Select[Any]] = [
        select(edge.c.materialization).where(or_(_is_lost(), nobody)).distinct(),
        select(member.c.materialization)
        .where(member.c.level.in_(ENTITY_LEVELS), ~_is_registered(member.c.level, member.c.entity))
        .distinct(),
    ]
    made = materialization.c
    for name, level in steps:
        if level in ENTITY_LEVELS:
            unknown = ~select(entity.c.seq).where(entity.c.level == level, entity.c.id == made.partition).exists()
            asked.append(select(made.id).where(made.asset == name, unknown))
    return {number for statement in asked for number in connection.execute(statement).scalars()}


def was_recovered(connection: Connection) -> bool:
    """Elsewhere, whatever a making names is known: makings and entities are never removed."""
    return connection.execute(select(event.c.seq).where(event.c.kind == "recover").limit(1)).first() is not None


def _is_lost() -> ColumnElement[bool]:
    """Whether an edge names a step's content that no making has."""
    made = materialization.alias().c
    same = and_(made.asset == edge.c.asset, made.partition == edge.c.partition, made.data_version == edge.c.version)
    return and_(edge.c.asset.not_in(NOT_MADE), ~select(made.id).where(same).exists())


def _is_registered(level: ColumnElement[str], name: ColumnElement[str]) -> ColumnElement[bool]:
    return select(entity.c.seq).where(entity.c.level == level, entity.c.id == name).exists()
