"""A cell's text as a value of the declared type. Text stays text: 0012 is not a number."""

import datetime
import math
import numbers
import re

from ctcore.model.column import Column, Value

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # what no cell may have, nor a half of one
INTEGER = r"[+-]?[0-9]{1,18}"
REAL = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
_TRUE = {"true", "t", "yes", "y", "1"}
_FALSE = {"false", "f", "no", "n", "0"}
BOOLEANS = (*sorted(_TRUE), *sorted(_FALSE))
"""The words of a boolean, in small letters; a sheet may have them in any."""
_SAID = {
    "integer": "a whole number",
    "real": "a number",
    "boolean": "true or false",
    "date": "a date as YYYY-MM-DD",
}
_WORDS = (
    ("male", "Male", "M", "m", "XY", "1"),
    ("female", "Female", "F", "f", "XX", "2"),
    ("affected", "case", "true", "2"),
    ("unaffected", "control", "false", "1"),
    ("unknown", "Unknown", "U", "NA", "0"),
)


def fit_word(word: str, column: Column) -> str:
    """A word of another format (PED, phenopackets) in the column's terms: female as F, affected as true.

    Unknown becomes a blank if the column does not list it. A word without a counterpart stays, and is refused later.
    """
    if word == "unknown" and not column.enum:
        return ""
    plain = Column(column.name, column.type)
    for words in _WORDS:
        if word == words[0] and (column.enum or column.type != "text"):
            fits = (
                one for one in words if (one in column.enum if column.enum else convert_text(one, plain)[1] is None)
            )
            return next(fits, "" if word == "unknown" else word)
    return word


def convert_text(text: str, column: Column) -> tuple[Value, str | None]:
    """The value, and its problem."""
    if column.enum and text not in column.enum:
        return None, f"is not one of {', '.join(column.enum)}; correct the cell or extend the enum in ct.toml"
    try:
        value = _typed(text, column.type)
    except ValueError:
        return None, f"is not {_SAID[column.type]}; correct the cell, or leave it blank where it is not known"
    return value, _outside(value, column)


def fit_value(given: object, column: Column) -> tuple[Value, str | None]:
    """A program's value in the column's type, and its problem. None is a blank."""
    if given is None:
        return None, "is blank, but required" if column.required else None
    value = _like(given, column.type)
    if value is None or (column.type == "date" and convert_text(str(value), Column("", "date"))[1]):
        return None, f"is not {_SAID.get(column.type, 'a text')}"
    if column.enum and value not in [_typed(one, column.type) for one in column.enum]:
        return None, f"is not one of {', '.join(column.enum)}"
    return value, _outside(value, column)


def _like(given: object, kind: str) -> Value:
    """Convert numpy numbers and datetime days too; None for another type."""
    if kind == "boolean" or isinstance(given, bool):
        return given if kind == "boolean" and isinstance(given, bool) else None
    if kind == "integer":
        return int(given) if isinstance(given, numbers.Integral) else None
    if kind == "real":
        value = float(given) if isinstance(given, numbers.Real) else math.nan
        return value if math.isfinite(value) else None
    if kind == "date" and type(given) is datetime.date:
        return given.isoformat()
    return given if isinstance(given, str) else None


def _outside(value: Value, column: Column) -> str | None:
    """Both ends of a range are inside."""
    if column.range is None or not isinstance(value, int | float):
        return None
    low, high = column.range
    return None if low <= value <= high else f"is not within {low:g} to {high:g}"


def _typed(text: str, kind: str) -> Value:
    if kind == "text":
        return text
    if kind == "integer":
        if not re.fullmatch(INTEGER, text):
            raise ValueError
        return int(text)
    if kind == "real":
        if not re.fullmatch(REAL, text):
            raise ValueError
        value = float(text)
        if not math.isfinite(value):
            raise ValueError
        return value
    if kind == "boolean":
        word = text.lower()
        if word not in _TRUE | _FALSE:
            raise ValueError
        return word in _TRUE
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise ValueError
    return datetime.date.fromisoformat(text).isoformat()


def control_characters(rows: list[tuple[int, list[str]]], header: list[str]) -> list[str]:
    """Cells with characters that no name, path or terminal should be given."""
    return [
        f"row {line}, column {name!r:.80}: {cell!r:.80} has a control character; remove it"
        for line, cells in [(1, header), *rows]
        for name, cell in zip(header, cells, strict=False)
        if CONTROL.search(cell)
    ]
