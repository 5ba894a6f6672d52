"""One table that people read, its values, and the names of its columns."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Row = tuple[Any, ...]
BIGGEST = 2**63 - 1
_KINDS = {bool: "boolean", int: "integer", float: "real", str: "text", type(None): "none"}


@dataclass(frozen=True)
class View:
    """One table: typed columns (text, integer, real, boolean, date, or `any`), and its rows."""

    name: str
    columns: tuple[tuple[str, str], ...]
    rows: Callable[[], Iterator[Row]]

    @property
    def heads(self) -> list[str]:
        return [name for name, _ in self.columns]


def storable_value(value: Any) -> Any:
    """A value that every table can hold: a number beyond 64 bits, a list or a table as its JSON text."""
    if isinstance(value, bool) or value is None or isinstance(value, float | str):
        return value
    if isinstance(value, int):
        return value if abs(value) <= BIGGEST else str(value)
    return json.dumps(value, ensure_ascii=False)


def kind_of(value: Any) -> str:
    """The type that a result was measured as."""
    return _KINDS.get(type(value), "json")


def distinct_names(names: Sequence[str]) -> list[str]:
    """The same names, with a number after those that differ from another only in case: SQL ignores case."""
    found: list[str] = []
    for name in names:
        other, number = name, 1
        while other.lower() in {one.lower() for one in found}:
            number += 1
            other = f"{name}_{number}"
        found.append(other)
    return found


def common_type(types: set[str]) -> str:
    """The type of a column in which values of these types stand."""
    if types and types <= {"integer", "real"}:
        return "integer" if types == {"integer"} else "real"
    return types.pop() if len(types) == 1 and types <= {"text", "boolean", "date"} else "any"
