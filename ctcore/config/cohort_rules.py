"""`[cohorts.NAME]` of ct.toml as rules, with everything that is wrong there at once."""

import datetime
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from ctcore.model.cohort_rule import COMPARES, OPS, Cohort, Condition, Op
from ctcore.model.column import Column
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.model.schema import ID_PATTERN, Levels
from ctcore.model.values import convert_text
from ctcore.store.digest import canonical_json

KEYS = ("where", "level", "has", "members", "members_file", "any_of", "all_of", "none_of", "pairing")
_WAYS = ("any_of", "all_of", "none_of")
_EXACT = 2**53  # up to here a whole number and its double are the same
_FORM = '"F", a list of values, or { ">=" = 18 }, { not = "F" }, { known = true }'


def read_cohorts(
    document: Mapping[str, Any], levels: Levels, pairings: Iterable[str], root: Path
) -> tuple[dict[str, Cohort], list[str]]:
    """The cohorts by name, `all` where none is declared; and the problems."""
    reader = _Reader(document, levels, list(pairings), root)
    found = {name: cohort for name in document if (cohort := reader.cohort(name)) is not None}
    return found or {"all": Cohort("all")}, reader.problems


def columns_of(levels: Levels) -> dict[str, Column]:
    """Everything that a rule may read, as `level.column`."""
    columns = {f"{level}.{one.name}": one for level in ENTITY_LEVELS for one in levels[level].columns.values()}
    return columns | {f"{level}.id": Column("id") for level in ENTITY_LEVELS}


def nearest_hint(name: str, known: Iterable[str]) -> str:
    listed = list(known)
    found = difflib.get_close_matches(name, listed, 1)
    return f"did you mean {found[0]!r}?" if found else f"known: {', '.join(sorted(listed)) or 'none'}"


def value_of(said: str, value: object, column: Column, problems: list[str]) -> str:
    """The value as the catalog has it, as text: `true` for a boolean, `5.0` for 5 in a column of numbers."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if not isinstance(value, str | int | float | datetime.date) or isinstance(value, datetime.datetime):
        problems.append(f"{said} = {value!r:.80}: one value is expected")
        return text
    typed, problem = convert_text(text, column)
    if problem is not None:
        hint = difflib.get_close_matches(text, column.enum, 1)
        meant = f"; did you mean {hint[0]!r}?" if hint else ""
        problems.append(f"{said} = {value!r:.80} {problem.partition(';')[0]}{meant}")
    return typed if isinstance(typed, str) else canonical_json(typed).decode()


class _Reader:
    """Cohorts may name each other: each is read once, when it is first asked for."""

    def __init__(self, document: Mapping[str, Any], levels: Levels, pairings: list[str], root: Path) -> None:
        self.document, self.levels, self.pairings, self.root = document, levels, pairings, root
        self.columns = columns_of(levels)
        self.problems: list[str] = []
        self.known: dict[str, Cohort | None] = {}
        self.reading: list[str] = []

    def cohort(self, name: str) -> Cohort | None:
        if name not in self.known:
            self.reading.append(name)
            self.known[name] = self._read(name)
            self.reading.remove(name)
        return self.known[name]

    def _read(self, name: str) -> Cohort | None:
        place, entry = f"[cohorts.{name}]", self.document[name]
        if not isinstance(entry, dict):
            self.problems.append(f"cohorts.{name} = {entry!r:.80}: a table {place} is expected")
            return None
        table = cast(dict[str, Any], entry)
        if not re.fullmatch(ID_PATTERN, name):
            self.problems.append(f"{place}: the name must match {ID_PATTERN}")
        for key in table.keys() - set(KEYS):
            self.problems.append(f"{place}: unknown key {key!r}; {nearest_hint(key, KEYS)}")
        level, pairing = table.get("level"), table.get("pairing")
        if level is not None and level not in ENTITY_LEVELS:
            self.problems.append(f"{place} level = {level!r:.80}: one of {', '.join(ENTITY_LEVELS)}")
            level = None
        if pairing is not None and pairing not in self.pairings:
            self.problems.append(
                f"{place} pairing = {pairing!r:.80}: no such pairing; {nearest_hint(str(pairing), self.pairings)}"
            )
            pairing = None
        others = {way: self._others(place, way, table.get(way, [])) for way in _WAYS}
        members = self._members(place, table)
        where = self._where(place, table.get("where", {}))
        has = self._has(place, table.get("has", {}))
        return Cohort(name, where, level, has, members, level or "patient", **others, pairing=pairing)

    def _where(self, place: str, where: object) -> dict[str, tuple[Condition, ...]]:
        if not isinstance(where, dict):
            name = f"{place[1:-1]}.where"
            self.problems.append(f"{name} = {where!r:.80}: a table [{name}] is expected")
            return {}
        found: dict[str, tuple[Condition, ...]] = {}
        for name, said in cast(dict[str, Any], where).items():
            if name in self.columns:
                found[name] = tuple(self._conditions(f"{place} where {name}", said, self.columns[name]))
            else:
                self.problems.append(
                    f"{place} where {name!r}: no such level.column; {nearest_hint(name, self.columns)}"
                )
        return found

    def _conditions(self, said: str, given: Any, column: Column) -> Iterable[Condition]:
        if not isinstance(given, dict):
            return [self._among(said, "is", given, column)]
        if not given:
            self.problems.append(f"{said} = {{}}: write {_FORM}")
        return [self._condition(said, op, value, column) for op, value in cast(dict[str, Any], given).items()]

    def _condition(self, said: str, op: str, value: Any, column: Column) -> Condition:
        if op not in OPS:
            self.problems.append(f"{said}: no such comparison {op!r}; one of {', '.join(OPS)}")
            return Condition("is", ())
        known = cast(Op, op)
        if known in COMPARES:
            return Condition(known, (self._bound(f"{said} {op}", value, column),))
        if known != "known":
            return self._among(f"{said} {op}", known, value, column)
        if not isinstance(value, bool):
            self.problems.append(f"{said} known = {value!r:.80}: true or false is expected, without quotes")
        return Condition(known, (str(value is True).lower(),))

    def _among(self, said: str, op: Op, value: Any, column: Column) -> Condition:
        values = cast(list[Any], value) if isinstance(value, list) else [value]
        if not values:
            self.problems.append(f"{said} = []: the list of values is empty; write {_FORM}")
        return Condition(op, tuple(dict.fromkeys(value_of(said, one, column, self.problems) for one in values)))

    def _bound(self, said: str, value: Any, column: Column) -> str:
        text = value_of(said, value, column, self.problems)
        if column.type not in ("integer", "real", "date"):
            way = f'declare {column.name} = "integer", "real" or "date"'
            self.problems.append(f"{said}: a {column.type} is not compared by size; {way}, or list the values")
        elif column.type == "integer" and isinstance(value, int) and abs(value) > _EXACT:
            self.problems.append(f"{said} = {value}: numbers are compared up to {_EXACT}")
        return text

    def _has(self, place: str, has: object) -> dict[Level, int]:
        if not isinstance(has, dict):
            self.problems.append(f"{place} has = {has!r:.80}: write has = {{ specimen = 2 }}")
            return {}
        found: dict[Level, int] = {}
        for level, n in cast(dict[str, Any], has).items():
            if level not in ("specimen", "assay"):
                self.problems.append(f"{place} has {level!r}: specimen or assay, of a patient")
            elif isinstance(n, bool) or not isinstance(n, int) or n < 1:
                self.problems.append(f"{place} has {level} = {n!r:.80}: a whole number, 1 or more")
            else:
                found[cast(Level, level)] = n
        return found

    def _members(self, place: str, table: Mapping[str, Any]) -> tuple[str, ...] | None:
        if "members" not in table and "members_file" not in table:
            return None
        members = table.get("members", [])
        if not isinstance(members, list) or not all(isinstance(one, str) for one in cast(list[Any], members)):
            self.problems.append(f'{place} members = {members!r:.80}: a list of IDs is expected, as in ["P1"]')
            members = []
        listed = [(place + " members", one) for one in cast(list[str], members)]
        listed += self._file(place, table["members_file"]) if "members_file" in table else []
        for where, one in listed:
            if not re.fullmatch(ID_PATTERN, one):
                self.problems.append(f"{where}: {one!r:.80} is no ID; one a line, # begins a comment")
        return tuple(dict.fromkeys(one for _, one in listed))

    def _file(self, place: str, name: object) -> list[tuple[str, str]]:
        said = f"{place} members_file = {name!r:.80}"
        if not isinstance(name, str) or not name or "\0" in name:
            self.problems.append(f"{said}: a path is expected, relative to the project")
            return []
        try:
            lines = (self.root / name).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(
                f"{said} cannot be read: {getattr(error, 'strerror', None) or error}; correct the path"
            )
            return []
        cells = ((at, line.partition("#")[0].strip()) for at, line in enumerate(lines, 1))
        return [(f"{name}:{at}", cell) for at, cell in cells if cell]

    def _others(self, place: str, way: str, names: object) -> tuple[Cohort, ...]:
        if not isinstance(names, list) or not all(isinstance(one, str) for one in cast(list[Any], names)):
            self.problems.append(f'{place} {way} = {names!r:.80}: a list of cohorts is expected, as in ["adults"]')
            return ()
        found: list[Cohort] = []
        for name in cast(list[str], names):
            if name not in self.document:
                self.problems.append(f"{place} {way}: no cohort {name!r}; {nearest_hint(name, self.document)}")
            elif name in self.reading:
                way_round = " → ".join([*self.reading[self.reading.index(name) :], name])
                self.problems.append(f"{place} {way}: a cohort is made from itself: {way_round}; take one away")
            elif (other := self.cohort(name)) is not None:
                found.append(other)
        return tuple(found)
