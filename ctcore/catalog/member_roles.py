"""Members as they were when something was made: who, and in which role."""

from collections.abc import Iterable

from sqlalchemy import Connection, and_, func, select

from ctcore.catalog.tables import artifact, entity, materialization, member
from ctcore.model.node import Node

Member = tuple[str, str, str]
"""Level, ID and role."""

_IS_CURRENT = and_(  # by its key: nothing leads from a materialization to the artifact
    artifact.c.asset == materialization.c.asset,
    artifact.c.partition == materialization.c.partition,
    artifact.c.materialization == materialization.c.id,
)


def members_of(connection: Connection, number: int) -> list[Member]:
    """Of one making, in the order of registration; who is registered no more, last."""
    known = and_(entity.c.level == member.c.level, entity.c.id == member.c.entity)
    rows = connection.execute(
        select(member.c.level, member.c.entity, member.c.role)
        .select_from(member.outerjoin(entity, known))
        .where(member.c.materialization == number)
        .order_by(entity.c.seq.is_(None), entity.c.seq, member.c.entity)
    )
    return [(row[0], row[1], row[2]) for row in rows]


def role_counts(connection: Connection, steps: Iterable[str]) -> dict[Node, dict[str, int]]:
    """How many members of each role the current artifacts of these steps have."""
    made = materialization.c
    rows = connection.execute(
        select(made.asset, made.partition, member.c.role, func.count())
        .select_from(artifact.join(materialization, _IS_CURRENT).join(member, member.c.materialization == made.id))
        .where(artifact.c.asset.in_(list(steps)))
        .group_by(made.asset, made.partition, member.c.role)
        .order_by(made.asset, made.partition, member.c.role)
    )
    found: dict[Node, dict[str, int]] = {}
    for asset, partition, role, n in rows:
        found.setdefault((asset, partition), {})[role] = n
    return found
