"""⑦ What belongs together, as ct.toml says (`[pairings.NAME]`): who has all of it, and what the others lack."""

import difflib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from sqlalchemy import Connection, select

from ctcore.catalog.attributes import attribute
from ctcore.catalog.tables import entity
from ctcore.cohorts import Kin, in_cohort, rank
from ctcore.digest import canonical
from ctcore.errors import Usage
from ctcore.inputs import Inputs
from ctcore.mirror.ranges import Flags
from ctcore.mirror.versions import Places
from ctcore.project import Project
from ctcore.settings import Pairing
from ctcore.standing import today
from ctcore.step import ENTITY_LEVELS, Level

Status = Literal["complete", "incomplete", "broken", "singleton"]
WITHHELD = "somebody"  # whoever is without consent is not named
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class Cell:
    """What a group has of one value: the specimens (or assays) with a usable assay, and those without any."""

    usable: tuple[str, ...] = ()
    barred: tuple[str, ...] = ()
    passes: bool = False

    @property
    def is_there(self) -> bool:
        return bool(self.usable or self.barred)


@dataclass(frozen=True)
class Row:
    """A patient (or specimen): what it has by value, and what it comes to, with the reason. `at`: its position."""

    who: str
    at: int
    cells: Mapping[str, Cell]
    status: Status
    passing: int
    enough: bool
    reason: str

    @property
    def missing(self) -> list[str]:
        return [value for value, cell in self.cells.items() if not cell.is_there]


@dataclass(frozen=True)
class Readiness:
    """A pairing today, for a step or for any. `without`: usable ones of the level that have none of its values.

    `groups`: the group of everybody of the pairing's level, by position.
    """

    pairing: Pairing
    values: tuple[str, ...]
    rows: Sequence[Row]
    without: int
    groups: Places
    step: str | None = None

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(row.status for row in self.rows)
        return {status: found[status] for status in STATUSES}

    @property
    def enough(self) -> int:
        return sum(row.enough for row in self.rows)

    @property
    def words(self) -> str:
        """`3 complete, 1 incomplete, …`."""
        return ", ".join(f"{n} {status}" for status, n in self.counts.items())


@dataclass(frozen=True)
class Asked:
    """Of whom: `everybody`, also of who may not be used; for a step; of a cohort. `discreet`: without their names."""

    everybody: bool = False
    step: str | None = None
    cohort: str | None = None
    discreet: bool = False


def readiness(
    project: Project,
    name: str,
    everybody: bool = False,
    *,
    step: str | None = None,
    cohort: str | None = None,
    discreet: bool = False,
) -> Readiness:
    """Of all who may be used: who is complete. A patient who may not be is in no row, but on request.

    `step`: who may be used for it. `cohort`: only groups that have a member in it; of these, all that they have.
    `discreet`: who may not be used is somebody.
    """
    pairing = declared(project, name)
    with project.catalog.read() as connection:
        inputs = today(project, connection)[1]
        return _readiness(connection, inputs, pairing, Asked(everybody, step, cohort, discreet))


def _readiness(connection: Connection, inputs: Inputs, pairing: Pairing, asked: Asked) -> Readiness:
    kin, level = inputs.kin, pairing.level
    names, groups = _groups(connection, kin, pairing)
    found = _Gathered(connection, kin, pairing, groups, asked)
    shown = kin.able(asked.step, level) if asked.step else kin.usable[level]
    shown = np.ones_like(shown) if asked.everybody else shown
    if asked.cohort is not None:
        shown = shown & in_cohort(kin, level, inputs.settings.cohorts[asked.cohort])
    wanted = np.unique(groups[shown & (groups >= 0)]).tolist()
    found.of(wanted)
    rows: list[Row] = [found.row(at, names[at]) for at in wanted if at in found.groups]
    without = len(wanted) - len(rows) + int(np.count_nonzero(shown & (groups < 0)))
    return Readiness(pairing, found.values, rows, without, groups, asked.step)


def _groups(connection: Connection, kin: Kin, pairing: Pairing) -> tuple[list[str], Places]:
    """The names of the groups, and the group of everybody of the pairing's level; -1: of none."""
    if pairing.within == pairing.level:
        return kin.entities[pairing.level].ids, np.arange(len(kin.entities[pairing.level]))
    values = _values(connection, pairing.within)
    known = {value: at for at, value in enumerate(dict.fromkeys(value for value in values if value))}
    return list(known), np.array([known.get(value, -1) for value in values], np.int64)


def declared(project: Project, name: str) -> Pairing:
    known = project.settings.pairings
    if name not in known:
        listed = ", ".join(known) or 'none; write [pairings.NAME] with by = "specimen.COLUMN" into ct.toml'
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise Usage(f"no pairing {name!r}; declared: {listed}{hint}")
    return known[name]


def complete(project: Project, name: str) -> dict[Level, list[str]]:
    """The entities of complete groups, by level: the group itself and all usable below it."""
    pairing = declared(project, name)
    with project.catalog.read() as connection:
        inputs = today(project, connection)[1]
        ready = _readiness(connection, inputs, pairing, Asked())
    found = of_groups(inputs.kin, ready, [row.at for row in ready.rows if row.status == "complete"])
    return {level: names_of(inputs.kin, level, flags) for level, flags in found.items()}


def of_groups(kin: Kin, ready: Readiness, groups: Sequence[int]) -> dict[Level, Flags]:
    """Who belongs to these groups, by level, and may be used; of levels above the groups nobody does."""
    top = ready.pairing.level
    chosen = np.isin(ready.groups, list(groups))
    return {level: chosen[kin.above(level, top)] & kin.usable[level] for level in ENTITY_LEVELS[rank(top) :]}


def names_of(kin: Kin, level: Level, flags: Flags) -> list[str]:
    ids = kin.entities[level].ids
    return [ids[at] for at in np.flatnonzero(flags).tolist()]


class _Gathered:
    """Assays by group, value and the entity that has the value: their usability."""

    def __init__(self, connection: Connection, kin: Kin, pairing: Pairing, groups: Places, asked: Asked) -> None:
        self.pairing, self.kin, self.asked, self.step = pairing, kin, asked, asked.step
        self.level = pairing.by.partition(".")[0]
        values = _values(connection, pairing.by)
        own = kin.above("assay", self.level)
        able = kin.able(asked.step, "assay") if asked.step else kin.usable["assay"]
        wanted = set(pairing.order) if pairing.order else {value for value in values if value}
        has = np.array([value in wanted for value in values], np.bool_)
        counted = np.flatnonzero(has[own] & _matching(connection, kin, pairing)) if len(own) else own
        self.groups: dict[int, dict[str, dict[int, list[bool]]]] = defaultdict(lambda: defaultdict(dict))
        above = groups[kin.above("assay", pairing.level)]
        counted = counted[above[counted] >= 0]
        listed = zip(own[counted].tolist(), above[counted].tolist(), able[counted].tolist(), strict=True)
        for unit, up, usable in listed:
            self.groups[up][values[unit]].setdefault(unit, []).append(usable)
        self.values = pairing.order

    def of(self, places: Iterable[int]) -> None:
        """The values that these groups have: one that only somebody else has is not shown."""
        there = {value for at in places if at in self.groups for value in self.groups[at]}
        self.values = self.pairing.order or tuple(sorted(there))

    def row(self, at: int, who: str) -> Row:
        cells = {value: self._cell(self.groups[at].get(value, {})) for value in self.values}
        there = [value for value, cell in cells.items() if cell.is_there]
        passing = sum(cell.passes for cell in cells.values())
        status: Status = "complete"
        if len(there) == 1 and len(self.values) > 1:
            status = "singleton"
        elif len(there) < len(self.values):
            status = "incomplete"
        elif passing < len(self.values):
            status = "broken"
        enough = passing >= (self.pairing.require or len(self.values))
        return Row(who, at, cells, status, passing, enough, self._reason(cells))

    def _cell(self, units: Mapping[int, list[bool]]) -> Cell:
        """By the policy for several; whoever may not be used is named in any case."""
        usable = [unit for unit, assays in units.items() if any(assays)]
        spoilt = [unit for unit, assays in units.items() if not all(assays)]
        barred = spoilt if self.pairing.several == "worst" else [unit for unit in units if unit not in usable]
        passes = bool(usable) and (self.pairing.several == "any" or not barred)
        return Cell(self._names(usable), self._names(barred, self.asked.discreet), passes)

    def _names(self, places: Iterable[int], withheld: bool = False) -> tuple[str, ...]:
        """Whoever is without consent is not named."""
        ids, hidden = self.kin.entities[self.level].ids, self.kin.withheld[self.level]
        if self.asked.everybody:
            return tuple(ids[at] for at in places)
        return tuple(WITHHELD if withheld or hidden[at] else ids[at] for at in places)

    def _reason(self, cells: Mapping[str, Cell]) -> str:
        said = [self._lack(cells, value) for value, cell in cells.items() if not cell.is_there]
        step = f" for {self.step}" if self.step else ""
        for value, cell in cells.items():
            if cell.barred:
                some = "an assay of " if self.pairing.several == "worst" else ""
                what = f"{value}: {some}{', '.join(cell.barred)} may not be used{step}"
                said.append(what + (f", {', '.join(cell.usable)} may" if cell.usable and cell.passes else ""))
        return "; ".join(said)

    def _lack(self, cells: Mapping[str, Cell], value: str) -> str:
        """A value that is not there; in an order within one patient, between which others it is missing."""
        inside = self.pairing.order if self.pairing.within == self.pairing.level else ()
        there = [one for one in inside if cells[one].is_there]
        place = self.values.index(value)
        before = [one for one in there if self.values.index(one) < place]
        after = [one for one in there if self.values.index(one) > place]
        gap = f", between {before[-1]} and {after[0]}" if before and after else ""
        return f"no assay of {value}{gap}"


def _values(connection: Connection, column: str) -> list[str]:
    """A column's values as text, in the order of registration; empty where it is blank."""
    level, _, name = column.partition(".")
    asked = select(attribute(entity, name, connection.dialect.name)).where(entity.c.level == level)
    texts = connection.execute(asked.order_by(entity.c.seq)).scalars().all()
    known = {text: _text(json.loads(text)) for text in set(texts)}
    return [known[text] for text in texts]


def _matching(connection: Connection, kin: Kin, pairing: Pairing) -> Flags:
    """Which assays have what `where` says, themselves or above."""
    found = np.ones(len(kin.entities["assay"]), np.bool_)
    for name, wanted in pairing.where.items():
        has = np.array([value == wanted for value in _values(connection, name)], np.bool_)
        found &= has[kin.above("assay", name.partition(".")[0])]
    return found


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else canonical(value).decode()
