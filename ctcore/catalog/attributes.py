"""② A metadata column's value in SQL: the same canonical JSON text on both back ends."""

from typing import Any

from sqlalchemy import JSON, ColumnElement, Text, cast, func, literal


def attribute(row: Any, column: str, dialect: str) -> ColumnElement[str]:
    """A metadata column's value as canonical JSON text; `null` where it is blank. `id` is the ID itself."""
    if column == "id":
        return literal('"').concat(row.c.id).concat('"')  # IDs are inert: nothing in them needs escaping
    if dialect == "sqlite":
        return func.coalesce(row.c.attributes.op("->")(column), "null")
    return func.coalesce(cast(cast(row.c.attributes, JSON).op("->")(column), Text), "null")
