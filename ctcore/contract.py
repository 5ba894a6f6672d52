"""Contracts of outputs. ct checks them before it publishes a file, and again on request."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from ctcore.errors import StepError
from ctcore.util import json_text

Type = Literal["text", "integer", "real"]
TYPES: tuple[Type, ...] = get_args(Type)
SHOWN = 20  # problems a file; a wrong column in a million rows is one fact, not a million

JsonType = Literal["text", "integer", "real", "list", "object"]
_JSON: Mapping[str, tuple[type, ...]] = {
    "text": (str,),
    "integer": (int,),
    "real": (int, float),
    "list": (list,),
    "object": (dict,),
}


@dataclass(frozen=True)
class NotEmpty:
    """A file with at least one byte."""

    def problems(self, path: Path) -> Sequence[str]:
        return [] if path.stat().st_size else ["the file is empty"]


@dataclass(frozen=True)
class Table:
    """A tab-separated table with a header line.

    `columns` must all be there, each with its type. Further columns are wrong unless `others` gives their
    type. A blank value is wrong except in the columns of `blank`. `ranges` are inclusive; `unique` columns
    together identify a row.
    """

    columns: Mapping[str, Type]
    rows_min: int = 1
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    unique: tuple[str, ...] = ()
    blank: tuple[str, ...] = ()
    others: Type | None = None

    def __post_init__(self) -> None:
        given = {*self.columns.values(), *([self.others] if self.others else [])}
        if wrong := given - set(TYPES):
            raise StepError(f"Table: type {min(wrong)!r} is not one of {', '.join(TYPES)}")
        for name in (*self.ranges, *self.unique, *self.blank):
            if name not in self.columns:
                raise StepError(f"Table: {name!r} is not among its columns: {', '.join(self.columns)}")
        for name in self.ranges:
            if self.columns[name] == "text":
                raise StepError(f"Table: column {name!r} is text and cannot have a range")

    def problems(self, path: Path) -> Sequence[str]:
        try:
            return _first(self._read(path))
        except UnicodeDecodeError as error:
            return [f"not UTF-8 text (byte {error.start})"]
        except csv.Error as error:
            return [f"not a tab-separated table: {error}"]

    def _read(self, path: Path) -> Iterator[str]:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = csv.reader(stream, delimiter="\t")
            header = next(rows, None)
            if header is None:
                yield "the table has no header line"
                return
            wrong = list(self._header(header))
            yield from wrong
            if not wrong:
                yield from self._body(header, rows)

    def _header(self, header: list[str]) -> Iterator[str]:
        for name in self.columns:
            if name not in header:
                yield f"column {name!r} is missing; the table has: {', '.join(header)}"
        for name in sorted({name for name in header if header.count(name) > 1}):
            yield f"column {name!r} is there {header.count(name)} times"
        for name in header if self.others is None else ():
            if name not in self.columns:
                yield f"column {name!r} is not declared"

    def _body(self, header: list[str], rows: Iterator[list[str]]) -> Iterator[str]:
        seen: dict[tuple[str, ...], int] = {}
        number = 0
        for number, row in enumerate(rows, 1):
            if len(row) != len(header):
                yield f"row {number}: {len(row)} values for {len(header)} columns"
                continue
            values = dict(zip(header, row, strict=True))
            for name, value in values.items():
                if said := self._value(name, value):
                    yield f"row {number}, column {name!r}: {said}"
            if self.unique:
                key = tuple(values[name] for name in self.unique)
                first = seen.setdefault(key, number)
                if first != number:
                    yield f"row {number}: {_keys(self.unique, key)} is there already, in row {first}"
        if number < self.rows_min:
            yield f"{number} rows; at least {self.rows_min} expected"

    def _value(self, name: str, value: str) -> str | None:
        kind = self.columns.get(name, self.others or "text")
        if value == "":
            return None if name in self.blank else "blank"
        if kind == "text":
            return None
        number = _number(value, kind)
        if number is None:
            return f"{value!r} is not {'a whole number' if kind == 'integer' else 'a finite number'}"
        low, high = self.ranges.get(name, (-math.inf, math.inf))
        return None if low <= number <= high else f"{value} is not within {low:g} to {high:g}"


@dataclass(frozen=True)
class Json:
    """A JSON object with these keys, each of its type."""

    required: Mapping[str, JsonType] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if wrong := set(self.required.values()) - set(_JSON):
            raise StepError(f"Json: type {min(wrong)!r} is not one of {', '.join(_JSON)}")

    def problems(self, path: Path) -> Sequence[str]:
        try:
            found = json_text.loads(path.read_bytes())
        except ValueError as error:
            return [f"not JSON: {error}"]
        if not isinstance(found, dict):
            return [f"a JSON object is expected, not {type(found).__name__}"]
        return _first(self._keys(found))

    def _keys(self, found: Mapping[str, object]) -> Iterator[str]:
        for key, kind in self.required.items():
            value = found.get(key)
            if key not in found:
                yield f"key {key!r} is missing"
            elif not isinstance(value, _JSON[kind]) or isinstance(value, bool):
                yield f"key {key!r}: {value!r} is not of type {kind}"


def _number(text: str, kind: Type) -> int | float | None:
    """The value, or None where the text is not plainly a finite number ('1_000', ' 1' and 'nan' are not)."""
    if "_" in text or not text.isascii() or text != text.strip():
        return None
    try:
        if kind == "integer":
            return int(text)
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _keys(names: Sequence[str], values: Sequence[str]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in zip(names, values, strict=True))


def _first(problems: Iterator[str]) -> list[str]:
    found: list[str] = []
    for problem in problems:
        if len(found) == SHOWN:
            return [*found, "… and more"]
        found.append(problem)
    return found
