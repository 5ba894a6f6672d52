"""A metadata column's value in SQL: the same canonical JSON text on both back ends."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import JSON, ColumnElement, Connection, Text, cast, func, literal, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import entity


def attribute(row: Any, column: str, dialect: str) -> ColumnElement[str]:
    """A metadata column's value as canonical JSON text; `null` where it is blank. `id` is the ID itself."""
    if column == "id":
        return literal('"').concat(row.c.id).concat('"')  # IDs are inert: nothing in them needs escaping
    if dialect == "sqlite":
        return func.coalesce(row.c.attributes.op("->")(column), "null")
    # json and not jsonb, which writes numbers its own way (1e22 with all its digits): the text is compared as a text.
    return func.coalesce(cast(cast(row.c.attributes, JSON).op("->")(column), Text), "null")


def attribute_texts(connection: Connection, level: str, column: str, ids: Iterable[str]) -> dict[str, str]:
    """The values of a column by ID, as canonical JSON; `id` is the ID itself."""
    dialect = connection.dialect.name
    mine = (entity.c.level == level) & in_keys(entity.c.id, set(ids))
    rows = connection.execute(select(entity.c.id, attribute(entity, column, dialect)).where(mine))
    return {row[0]: row[1] for row in rows}
