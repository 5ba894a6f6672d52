"""② Who belongs to what today: entities and their ancestors, cohorts and their members, as conditions in SQL."""

import json
import math
from contextlib import suppress
from typing import Any

from sqlalchemy import JSON, ColumnElement, Text, and_, cast, func, literal, select

from ctcore.catalog.engine import unindexed
from ctcore.catalog.tables import entity
from ctcore.digest import canonical
from ctcore.policy import usable
from ctcore.settings import Cohort
from ctcore.step import ENTITY_LEVELS, Level


def at_level(level: Level) -> Any:
    """The entity table under a name of its own; the caller adds `member_of(alias, level)`."""
    return entity.alias()


def member_of(row: Any, level: Level, reached: bool = False) -> ColumnElement[bool]:
    """The row is a usable entity of this level; `reached`: it is found through another one that it belongs to."""
    return and_((unindexed(row.c.level) if reached else row.c.level) == level, usable(row))


def attribute(row: Any, column: str, dialect: str) -> ColumnElement[str]:
    """A metadata column's value as canonical JSON text; `null` where it is blank. `id` is the ID itself."""
    if column == "id":
        return literal('"').concat(row.c.id).concat('"')  # IDs are inert: nothing in them needs escaping
    if dialect == "sqlite":
        return func.coalesce(row.c.attributes.op("->")(column), "null")
    return func.coalesce(cast(cast(row.c.attributes, JSON).op("->")(column), Text), "null")


def linked(low: Any, low_level: Level, high: Any, high_level: Level) -> ColumnElement[bool]:
    """`high` is the ancestor of `low` at its level (or `low` itself)."""
    distance = ENTITY_LEVELS.index(low_level) - ENTITY_LEVELS.index(high_level)
    if distance == 0:
        return low.c.seq == high.c.seq
    if distance == 1:
        return low.c.parent == high.c.seq
    middle = entity.alias()
    above = select(middle.c.parent).where(middle.c.seq == low.c.parent).correlate(low)
    between = select(middle.c.seq).where(middle.c.parent == high.c.seq).correlate(high)
    # the same said twice: an index from below and one from above, whichever of the two is known first
    return and_(high.c.seq == above.scalar_subquery(), low.c.parent.in_(between))


def some(table: Any, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """There is a row of this table for which all of it holds."""
    return select(literal(1)).select_from(table).where(*conditions).correlate_except(table).exists()


def ancestor_column(row: Any, level: Level, column: str, dialect: str) -> ColumnElement[str]:
    """The value of `level.column` at the ancestor of a row (or at the row itself), as canonical JSON text."""
    high_level, _, name = column.partition(".")
    if high_level == level:
        return attribute(row, name, dialect)
    parent = entity.alias()
    if ENTITY_LEVELS.index(level) - ENTITY_LEVELS.index(high_level) == 1:
        found = select(attribute(parent, name, dialect)).where(parent.c.seq == row.c.parent)
        return found.correlate(row).scalar_subquery()
    higher = entity.alias()
    above = parent.join(higher, higher.c.seq == parent.c.parent)
    found = select(attribute(higher, name, dialect)).select_from(above).where(parent.c.seq == row.c.parent)
    return found.correlate(row).scalar_subquery()


def in_cohort(row: Any, level: Level, cohort: Cohort, dialect: str) -> ColumnElement[bool]:
    """The row satisfies the cohort's rule: by its own or an ancestor's column, or by one of its descendants'."""
    conditions: list[ColumnElement[bool]] = []
    for column, value in cohort.where.items():
        rule_level: Level = column.partition(".")[0]  # type: ignore[assignment]
        wanted = _texts(value)
        if ENTITY_LEVELS.index(rule_level) <= ENTITY_LEVELS.index(level):
            conditions.append(ancestor_column(row, level, column, dialect).in_(wanted))
        else:
            below = at_level(rule_level)
            found = attribute(below, column.partition(".")[2], dialect).in_(wanted)
            conditions.append(some(below, member_of(below, rule_level), linked(below, rule_level, row, level), found))
    return and_(member_of(row, level), *conditions)


def _texts(value: str) -> list[str]:
    """The JSON texts that a value of ct.toml may have in the catalog: as text, number or boolean."""
    texts = [canonical(value).decode()]
    try:
        number = json.loads(value)
    except ValueError:
        return texts
    if isinstance(number, bool):
        return [*texts, value]
    if isinstance(number, int | float) and math.isfinite(number):
        texts += sorted(_spellings(number) | {value})
    return texts


def _spellings(number: float) -> set[str]:
    """The canonical texts of one number: 30 and 30.0."""
    forms = {canonical(number).decode(), *(("0", "-0.0") if number == 0 else ())}
    if number == int(number):
        forms.add(str(int(number)))
    with suppress(OverflowError):
        forms |= {repr(float(number))} if float(number) == number else set()
    return forms
