"""Values that a function carries: its closure, its defaults, the arguments of a partial.

The identity of a step from a loop or a factory is its code and these values.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path, PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from ctcore.code.loader import file_of
from ctcore.store.digest import canonical_json, tagged_digest

_SHOWN = (Decimal, Fraction, date, datetime, time, timedelta, range, slice, complex)


@dataclass
class Closure:
    """The values of a callable as JSON, the code of all functions in them, and values without comparable content.

    `folder`: the step folder, which is no part of any value.
    """

    folder: str
    codes: list[CodeType] = field(default_factory=list)
    classes: list[type] = field(default_factory=list)
    opaque: list[str] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)

    def value(self, value: Any, name: str) -> Any:
        """A value as JSON, with its type where JSON has none of it."""
        # Members of an IntEnum or a StrEnum are ints and texts too; they are told below, with their names.
        if value is None or (isinstance(value, bool | int) and not isinstance(value, Enum)):
            return value
        if isinstance(value, str) and not isinstance(value, Enum):
            return value.replace(self.folder, ".")
        if id(value) in self._seen:
            return {"again": type(value).__qualname__}
        self._seen.add(id(value))
        try:
            return self._composed(value, name)
        finally:
            # Only what is inside itself is told as "again": the same value twice is no circle, and an id is given anew
            # once its value is gone.
            self._seen.discard(id(value))

    def place(self, path: PurePath) -> str:
        """A path relative to the folder, if it lies inside or above it."""
        if path.is_absolute() and (above := PurePath(self.folder)).is_relative_to(path):
            return "/".join([".."] * len(above.relative_to(path).parts)) or "."
        return str(path).replace(self.folder, ".")

    def _composed(self, value: Any, name: str) -> Any:
        for kinds, told in _TOLD.items():
            if isinstance(value, kinds):
                return told(self, value, name)
        if hasattr(value, "tobytes") and hasattr(value, "dtype"):
            return {"array": [str(value.dtype), list(value.shape), tagged_digest("ct.array.v1", value.tobytes())]}
        if is_dataclass(value):
            return self._dataclass(value, name)
        own = getattr(value, "__dict__", None)
        if own is not None and self._is_ours(type(value)):
            self.classes.append(type(value))
            return {"instance": type(value).__qualname__, "has": self._mapping(own, name)}
        self.opaque.append(f"{name} is a {type(value).__module__}.{type(value).__qualname__}")
        return {"opaque": type(value).__qualname__}

    def _is_ours(self, kind: type) -> bool:
        return file_of(kind.__module__, Path(self.folder)) is not None

    def _function(self, function: FunctionType, _name: str) -> Any:
        self.codes.append(function.__code__)
        found: dict[str, Any] = {"function": function.__qualname__}
        names = function.__code__.co_freevars
        cells = dict(_contents(names, function.__closure__ or ()))
        if cells:
            found["closes over"] = self._mapping(cells, function.__name__)
        for what in ("__defaults__", "__kwdefaults__"):
            if given := getattr(function, what):
                found[what] = self.value(given, function.__name__)
        if (wrapped := getattr(function, "__wrapped__", None)) is not None:
            found["wraps"] = self.value(wrapped, function.__name__)
        return found

    def _mapping(self, values: Mapping[Any, Any], name: str) -> Any:
        pairs = [[self.value(key, name), self.value(value, f"{key} of {name}")] for key, value in values.items()]
        return sorted(pairs, key=canonical_json)

    def _dataclass(self, value: Any, name: str) -> Any:
        self.classes.append(type(value))
        own = {one.name: getattr(value, one.name, None) for one in fields(value)}
        return {"record": type(value).__qualname__, "has": self._mapping(own, name)}

    def _class(self, value: type, _name: str) -> Any:
        self.classes.append(value)
        return {"class": f"{value.__module__.rpartition('.')[2]}.{value.__qualname__}"}

    def _partial(self, value: functools.partial[Any], name: str) -> Any:
        return {"partial": [self.value(part, name) for part in (value.func, value.args, value.keywords)]}

    def _method(self, value: MethodType, name: str) -> Any:
        return {"method": [self.value(value.__func__, name), self.value(value.__self__, name)]}


def _contents(names: tuple[str, ...], cells: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(names, cells, strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not bound yet
            yield name, None


_TOLD: Mapping[Any, Callable[[Closure, Any, str], Any]] = {
    Enum: lambda c, v, _: {"enum": f"{type(v).__qualname__}.{v.name}"},
    float: lambda c, v, _: {"float": repr(v)},
    (bytes, bytearray): lambda c, v, _: {"bytes": bytes(v).hex()},
    PurePath: lambda c, v, _: {"path": c.place(v)},
    _SHOWN: lambda c, v, _: {type(v).__name__: repr(v)},
    re.Pattern: lambda c, v, _: {"pattern": [c.value(v.pattern, ""), v.flags]},
    (list, tuple): lambda c, v, n: {type(v).__name__: [c.value(one, n) for one in v]},
    # Sorted: a set has another order in each process (docs.python.org, PYTHONHASHSEED).
    (set, frozenset): lambda c, v, n: {"set": sorted((c.value(one, n) for one in v), key=canonical_json)},
    Mapping: lambda c, v, n: {"mapping": c._mapping(v, n)},
    FunctionType: Closure._function,
    MethodType: Closure._method,
    functools.partial: Closure._partial,
    type: Closure._class,
    ModuleType: lambda c, v, _: {"module": v.__name__.rpartition(".")[2]},
    BuiltinFunctionType: lambda c, v, _: {"built in": v.__qualname__},
}


def is_plain(function: Callable[..., Any]) -> bool:
    """Whether a function carries nothing but its defaults."""
    return isinstance(function, FunctionType) and not function.__closure__ and not hasattr(function, "__wrapped__")
