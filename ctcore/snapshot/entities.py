"""Patients, specimens and assays in columns: a level at a time, in the order of registration."""

import datetime
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from ctcore.catalog.attribute_sql import attribute
from ctcore.catalog.tables import entity, file
from ctcore.governance.access import BarredEntities
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.snapshot.arrays import Flags
from ctcore.snapshot.versions import Places, Whole, no_versions, pack


@dataclass(frozen=True)
class Entities:
    """One level. `parents` are positions in the level above; `columns` and `files` are data versions by name and
    role. `barred`: excluded by itself; `barred_for`: excluded from a step besides; `withheld`: those of the barred
    without consent; `nonconsenting`: by step, those barred for it by a limited consent. `numbers` are values of columns
    that cohorts compare by size; a date is its day, a blank is NaN."""

    level: Level
    seq: Places
    ids: list[str]
    parents: Places
    columns: Mapping[str, Whole]
    files: Mapping[str, Whole]
    barred: Flags
    barred_for: Mapping[str, Flags]
    withheld: Flags
    nonconsenting: Mapping[str, Flags] = field(default_factory=dict)
    numbers: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def index(self) -> dict[str, int]:
        """Positions by ID."""
        return {name: at for at, name in enumerate(self.ids)}


@dataclass(frozen=True)
class Columns:
    """The metadata columns that steps and cohorts use today, by level: only these are kept. `compared`: as numbers."""

    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    compared: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, used: Iterable[str], compared: Iterable[str] = ()) -> "Columns":
        return cls(_by_level(used), _by_level(compared))


def _by_level(columns: Iterable[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {level: set() for level in ENTITY_LEVELS}
    for column in columns:
        level, _, name = column.partition(".")
        found[level].add(name)
    return {level: tuple(sorted(names)) for level, names in found.items()}


def load_entities(connection: Connection, columns: Columns, gate: BarredEntities) -> dict[str, Entities]:
    """All entities with their current values."""
    found: dict[str, Entities] = {}
    above = np.zeros(0, np.int64)
    for level in ENTITY_LEVELS:
        names = columns.names[level]
        values = [attribute(entity, name, connection.dialect.name) for name in names]
        rows = connection.execute(
            select(entity.c.seq, entity.c.parent, entity.c.id, *values)
            .where(entity.c.level == level)
            .order_by(entity.c.seq)
        ).all()
        seq, parent, ids, *texts = zip(*rows, strict=True) if rows else ((), (), (), *[()] * len(names))
        numbers = np.array(seq, np.int64)
        found[level] = Entities(
            level,
            numbers,
            list(ids),
            np.searchsorted(above, np.array(parent, np.int64)) if level != "patient" else np.full(len(ids), -1),
            {name: pack(column) for name, column in zip(names, texts, strict=True)},
            {},
            np.isin(numbers, gate.everywhere),
            _by_step(numbers, gate.by_step),
            np.isin(numbers, gate.withheld),
            _by_step(numbers, gate.nonconsenting),
            {name: _numbers(texts[names.index(name)]) for name in columns.compared[level]},
        )
        above = numbers
    return with_files(connection, found)


def _by_step(numbers: Places, listed: Mapping[str, Sequence[int]]) -> dict[str, Flags]:
    return {step: flags for step, some in listed.items() if (flags := np.isin(numbers, some)).any()}


def with_files(connection: Connection, found: dict[str, Entities]) -> dict[str, Entities]:
    """The same with the digests of their raw files."""
    by_role: dict[str, tuple[list[int], list[str]]] = {}
    for number, role, digest in connection.execute(select(file.c.entity, file.c.role, file.c.digest)):
        numbers, digests = by_role.setdefault(role, ([], []))
        numbers.append(number)
        digests.append(digest)
    for role, (numbers, digests) in by_role.items():
        asked, versions = np.array(numbers, np.int64), pack(digests)
        for level, some in found.items():
            place, mine = locate_numbers(some.seq, asked)
            if mine.any():
                column = no_versions(len(some))
                column[place[mine]] = versions[mine]
                found[level] = with_file(found[level], role, column)
    return found


def with_file(some: Entities, role: str, column: Whole) -> Entities:
    """The same level with other files in one role."""
    made = replace(some, files={**some.files, role: column})
    # `cached_property` keeps its value there (docs.python.org, functools); the IDs are the same, so it still holds.
    if "index" in some.__dict__:
        made.__dict__["index"] = some.index
    return made


def locate_numbers(known: Places, asked: Places) -> tuple[Places, Flags]:
    """Where these numbers stand among ascending ones, and which of them do."""
    place = np.searchsorted(known, asked)
    if not len(known):
        return place, np.zeros(len(asked), np.bool_)
    return place, known[np.minimum(place, len(known) - 1)] == asked


def number_of(text: str) -> float:
    """A number, or the day of a date; NaN of anything else."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return float(datetime.date.fromisoformat(text.strip('"')).toordinal())
    except ValueError:
        return math.nan


def _numbers(texts: Sequence[str]) -> NDArray[np.float64]:
    known = {text: number_of(text) for text in set(texts)}
    return np.array([known[text] for text in texts], np.float64)
