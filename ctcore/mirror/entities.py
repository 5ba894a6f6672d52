"""⑦ Patients, specimens and assays in columns: a level at a time, in the order of registration."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from sqlalchemy import Connection, select

from ctcore.catalog.attributes import attribute
from ctcore.catalog.tables import entity, file
from ctcore.mirror.ranges import Flags
from ctcore.mirror.versions import Places, Whole, nothing, packed
from ctcore.policy import Gate
from ctcore.step import ENTITY_LEVELS, Level


@dataclass(frozen=True)
class Entities:
    """One level. `parents` are positions in the level above; `columns` and `files` are data versions by name and role;
    `barred` tells who may not be used, by itself; `barred_for`, for which steps besides; `withheld`, who of the barred
    is so for want of consent."""

    level: Level
    seq: Places
    ids: list[str]
    parents: Places
    columns: Mapping[str, Whole]
    files: Mapping[str, Whole]
    barred: Flags
    barred_for: Mapping[str, Flags]
    withheld: Flags

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def index(self) -> dict[str, int]:
        """Positions by ID."""
        return {name: at for at, name in enumerate(self.ids)}


@dataclass(frozen=True)
class Columns:
    """The metadata columns that steps and cohorts use today, by level: only these are kept."""

    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, used: Iterable[str]) -> "Columns":
        found: dict[str, set[str]] = {level: set() for level in ENTITY_LEVELS}
        for column in used:
            level, _, name = column.partition(".")
            found[level].add(name)
        return cls({level: tuple(sorted(names)) for level, names in found.items()})


def load_entities(connection: Connection, columns: Columns, gate: Gate) -> dict[str, Entities]:
    """Everybody, with what is known of them now."""
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
            {name: packed(column) for name, column in zip(names, texts, strict=True)},
            {},
            np.isin(numbers, gate.everywhere),
            {step: flags for step, some in gate.by_step.items() if (flags := np.isin(numbers, some)).any()},
            np.isin(numbers, gate.withheld),
        )
        above = numbers
    return with_files(connection, found)


def with_files(connection: Connection, found: dict[str, Entities]) -> dict[str, Entities]:
    """The same with the digests of their raw files."""
    by_role: dict[str, tuple[list[int], list[str]]] = {}
    for number, role, digest in connection.execute(select(file.c.entity, file.c.role, file.c.digest)):
        numbers, digests = by_role.setdefault(role, ([], []))
        numbers.append(number)
        digests.append(digest)
    for role, (numbers, digests) in by_role.items():
        asked, versions = np.array(numbers, np.int64), packed(digests)
        for level, some in found.items():
            place, mine = located(some.seq, asked)
            if mine.any():
                column = nothing(len(some))
                column[place[mine]] = versions[mine]
                found[level] = with_file(found[level], role, column)
    return found


def with_file(some: Entities, role: str, column: Whole) -> Entities:
    """The same level with other files in one role."""
    made = replace(some, files={**some.files, role: column})
    if "index" in some.__dict__:
        made.__dict__["index"] = some.index
    return made


def located(known: Places, asked: Places) -> tuple[Places, Flags]:
    """Where these numbers stand among ascending ones, and which of them do."""
    place = np.searchsorted(known, asked)
    if not len(known):
        return place, np.zeros(len(asked), np.bool_)
    return place, known[np.minimum(place, len(known) - 1)] == asked
