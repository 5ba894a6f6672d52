"""Pairings (`[pairings.NAME]`): which groups are complete, and what the others lack."""

import difflib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from sqlalchemy import Connection, select

from ctcore.catalog.attribute_sql import attribute
from ctcore.catalog.tables import entity
from ctcore.config.settings import Pairing
from ctcore.errors import Usage
from ctcore.inputs.current import current_inputs
from ctcore.inputs.resolve import Inputs
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.project import Project
from ctcore.snapshot.arrays import Flags
from ctcore.snapshot.hierarchy import Hierarchy, in_cohort, rank
from ctcore.snapshot.versions import Places
from ctcore.store.digest import canonical_json

Status = Literal["complete", "incomplete", "broken", "singleton"]
WITHHELD = "somebody"  # whoever is without consent is not named
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class Cell:
    """One value in a group: specimens (or assays) with a usable assay, and those without one."""

    usable: tuple[str, ...] = ()
    barred: tuple[str, ...] = ()
    passes: bool = False

    @property
    def is_there(self) -> bool:
        return bool(self.usable or self.barred)


@dataclass(frozen=True)
class PairingRow:
    """One group, such as a patient: its cells by value, its state and the reason. `at`: its position."""

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
    rows: Sequence[PairingRow]
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
class PairingScope:
    """Whom to judge: `everybody`, including excluded people; for a step; in a cohort. `masked`: without their
    names."""

    everybody: bool = False
    step: str | None = None
    cohort: str | None = None
    masked: bool = False


def readiness(
    project: Project,
    name: str,
    everybody: bool = False,
    *,
    step: str | None = None,
    cohort: str | None = None,
    masked: bool = False,
) -> Readiness:
    """Judge the completeness of all usable groups. Excluded patients have no row unless requested.

    `step`: judge by who may be used for it. `cohort`: only groups with a member in it, with all their parts.
    `masked`: excluded people appear as "somebody".
    """
    pairing = declared_pairing(project, name)
    with project.catalog.read() as connection:
        inputs = current_inputs(project, connection)[1]
        return _readiness(connection, inputs, pairing, PairingScope(everybody, step, cohort, masked))


def _readiness(connection: Connection, inputs: Inputs, pairing: Pairing, asked: PairingScope) -> Readiness:
    hierarchy, level = inputs.hierarchy, pairing.level
    names, groups = _groups(connection, hierarchy, pairing)
    found = _Gathered(connection, hierarchy, pairing, groups, asked)
    shown = hierarchy.usable_for(asked.step, level) if asked.step else hierarchy.usable[level]
    shown = np.ones_like(shown) if asked.everybody else shown
    if asked.cohort is not None:
        shown = shown & in_cohort(hierarchy, level, inputs.settings.cohorts[asked.cohort])
    wanted = np.unique(groups[shown & (groups >= 0)]).tolist()
    found.of(wanted)
    rows: list[PairingRow] = [found.row(at, names[at]) for at in wanted if at in found.groups]
    without = len(wanted) - len(rows) + int(np.count_nonzero(shown & (groups < 0)))
    return Readiness(pairing, found.values, rows, without, groups, asked.step)


def _groups(connection: Connection, hierarchy: Hierarchy, pairing: Pairing) -> tuple[list[str], Places]:
    """The names of the groups, and the group of everybody of the pairing's level; -1: of none."""
    if pairing.within == pairing.level:
        return hierarchy.entities[pairing.level].ids, np.arange(len(hierarchy.entities[pairing.level]))
    values = _values(connection, pairing.within)
    known = {value: at for at, value in enumerate(dict.fromkeys(value for value in values if value))}
    return list(known), np.array([known.get(value, -1) for value in values], np.int64)


def declared_pairing(project: Project, name: str) -> Pairing:
    known = project.settings.pairings
    if name not in known:
        listed = ", ".join(known) or 'none; write [pairings.NAME] with by = "specimen.COLUMN" into ct.toml'
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise Usage(f"no pairing {name!r}; declared: {listed}{hint}")
    return known[name]


def complete_entities(project: Project, name: str) -> dict[Level, list[str]]:
    """The entities of complete groups, by level: the group itself and all usable below it."""
    pairing = declared_pairing(project, name)
    with project.catalog.read() as connection:
        inputs = current_inputs(project, connection)[1]
        ready = _readiness(connection, inputs, pairing, PairingScope())
    found = group_entities(inputs.hierarchy, ready, [row.at for row in ready.rows if row.status == "complete"])
    return {level: names_of(inputs.hierarchy, level, flags) for level, flags in found.items()}


def group_entities(hierarchy: Hierarchy, ready: Readiness, groups: Sequence[int]) -> dict[Level, Flags]:
    """The usable entities of these groups, by level; none for levels above the groups."""
    top = ready.pairing.level
    chosen = np.isin(ready.groups, list(groups))
    return {
        level: chosen[hierarchy.ancestors(level, top)] & hierarchy.usable[level] for level in ENTITY_LEVELS[rank(top) :]
    }


def names_of(hierarchy: Hierarchy, level: Level, flags: Flags) -> list[str]:
    ids = hierarchy.entities[level].ids
    return [ids[at] for at in np.flatnonzero(flags).tolist()]


class _Gathered:
    """Assays by group, value and the entity that has the value: their usability."""

    def __init__(
        self, connection: Connection, hierarchy: Hierarchy, pairing: Pairing, groups: Places, asked: PairingScope
    ) -> None:
        self.pairing, self.hierarchy, self.asked, self.step = pairing, hierarchy, asked, asked.step
        self.level = pairing.by.partition(".")[0]
        values = _values(connection, pairing.by)
        own = hierarchy.ancestors("assay", self.level)
        able = hierarchy.usable_for(asked.step, "assay") if asked.step else hierarchy.usable["assay"]
        wanted = set(pairing.order) if pairing.order else {value for value in values if value}
        has = np.array([value in wanted for value in values], np.bool_)
        counted = np.flatnonzero(has[own] & _matching(connection, hierarchy, pairing)) if len(own) else own
        self.groups: dict[int, dict[str, dict[int, list[bool]]]] = defaultdict(lambda: defaultdict(dict))
        above = groups[hierarchy.ancestors("assay", pairing.level)]
        counted = counted[above[counted] >= 0]
        listed = zip(own[counted].tolist(), above[counted].tolist(), able[counted].tolist(), strict=True)
        for unit, up, usable in listed:
            self.groups[up][values[unit]].setdefault(unit, []).append(usable)
        self.values = pairing.order

    def of(self, places: Iterable[int]) -> None:
        """The values of these groups. Values that only other groups have are left out."""
        there = {value for at in places if at in self.groups for value in self.groups[at]}
        self.values = self.pairing.order or tuple(sorted(there))

    def row(self, at: int, who: str) -> PairingRow:
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
        return PairingRow(who, at, cells, status, passing, enough, self._reason(cells))

    def _cell(self, units: Mapping[int, list[bool]]) -> Cell:
        """Apply the policy `several`. Excluded parts are always named."""
        usable = [unit for unit, assays in units.items() if any(assays)]
        spoilt = [unit for unit, assays in units.items() if not all(assays)]
        barred = spoilt if self.pairing.several == "worst" else [unit for unit in units if unit not in usable]
        passes = bool(usable) and (self.pairing.several == "any" or not barred)
        return Cell(self._names(usable), self._names(barred, self.asked.masked), passes)

    def _names(self, places: Iterable[int], withheld: bool = False) -> tuple[str, ...]:
        """The names, without people without consent."""
        ids, hidden = self.hierarchy.entities[self.level].ids, self.hierarchy.withheld[self.level]
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


def _matching(connection: Connection, hierarchy: Hierarchy, pairing: Pairing) -> Flags:
    """Assays that satisfy `where`, by their own columns or those above."""
    found = np.ones(len(hierarchy.entities["assay"]), np.bool_)
    for name, wanted in pairing.where.items():
        has = np.array([value == wanted for value in _values(connection, name)], np.bool_)
        found &= has[hierarchy.ancestors("assay", name.partition(".")[0])]
    return found


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else canonical_json(value).decode()
