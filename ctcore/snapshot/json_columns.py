"""A column of many rows as one text, a JSON array that the database makes: an object for each takes far longer."""

import json

import numpy as np
from sqlalchemy import ColumnElement, Text, cast, func

from ctcore.snapshot.versions import Places, Whole, of_digests, pack


def json_list(
    column: ColumnElement[object], dialect: str, where: ColumnElement[bool] | None = None
) -> ColumnElement[str]:
    """All values of a column, or those where something holds; several in one statement have the same order."""
    made = func.json_group_array(column) if dialect == "sqlite" else func.json_agg(column)
    return func.coalesce(cast(made if where is None else made.filter(where), Text), "[]")


def integers(text: str) -> Places:
    """Those of a list."""
    return np.fromstring(text[1:-1], np.int64, sep=",") if len(text) > 2 else np.zeros(0, np.int64)


def versions(text: str) -> Whole:
    """The data versions of a list, packed."""
    gap = '", "' if ", " in text[:80] else '","'  # PostgreSQL's and SQLite's
    found = of_digests(text[2:-2].replace(gap, "\n"))
    return pack(json.loads(text)) if found is None or not len(found) else found
