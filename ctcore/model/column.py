"""A typed column: metadata of a level, facts of a step, or results of an analysis."""

from dataclasses import dataclass
from typing import Literal, get_args

ColumnType = Literal["text", "integer", "real", "boolean", "date"]
COLUMN_TYPES: tuple[ColumnType, ...] = get_args(ColumnType)

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Column:
    """Text stays text; a date is ISO 8601 text; `enum` lists the only values allowed.

    `default`: a new entity's value if none is given; `unique`: no two entities of the level share a value. Both are for
    metadata only. `unit` and `range` (inclusive) are for results only.
    """

    name: str
    type: ColumnType = "text"
    required: bool = False
    enum: tuple[str, ...] = ()
    description: str = ""
    unique: bool = False
    default: Value = None
    unit: str = ""
    range: tuple[float, float] | None = None
