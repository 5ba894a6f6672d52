"""⑦ What belongs together, as ct.toml says (`[pairings.NAME]`): who has all of it, and what the others lack."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import Connection, select

from ctcore.catalog.tables import entity
from ctcore.cohorts import Kin, rank
from ctcore.digest import canonical
from ctcore.errors import Usage
from ctcore.project import Project
from ctcore.settings import Pairing
from ctcore.standing import today
from ctcore.step import ENTITY_LEVELS, Level

Status = Literal["complete", "incomplete", "broken", "singleton"]
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
    """A patient (or specimen): what it has by value, and what it comes to, with the reason."""

    who: str
    cells: Mapping[str, Cell]
    status: Status
    passing: int
    enough: bool
    reason: str


@dataclass(frozen=True)
class Readiness:
    """A pairing today. `without`: usable ones of the level that have none of its values."""

    pairing: Pairing
    values: tuple[str, ...]
    rows: Sequence[Row]
    without: int

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(row.status for row in self.rows)
        return {status: found[status] for status in STATUSES}

    @property
    def enough(self) -> int:
        return sum(row.enough for row in self.rows)


def readiness(project: Project, name: str, everybody: bool = False) -> Readiness:
    """Of all who may be used: who is complete. A patient who may not be is in no row, but on request."""
    pairing = declared(project, name)
    with project.catalog.read() as connection:
        mirror, inputs = today(project, connection)
        found = _Gathered(connection, inputs.kin, pairing)
    shown = inputs.kin.usable[pairing.within].tolist()
    ids = mirror.entities[pairing.within].ids
    asked = [at for at, may in enumerate(shown) if may or everybody]
    found.of(asked)
    rows = [found.row(at, ids[at]) for at in asked if at in found.groups]
    return Readiness(pairing, found.values, rows, len(asked) - len(rows))


def declared(project: Project, name: str) -> Pairing:
    known = project.settings.pairings
    if name not in known:
        listed = ", ".join(known) or 'none; write [pairings.NAME] with by = "specimen.COLUMN" into ct.toml'
        raise Usage(f"no pairing {name!r}; declared: {listed}")
    return known[name]


def complete(project: Project, name: str) -> dict[Level, list[str]]:
    """The entities of complete groups, by level: the group itself and all usable below it."""
    found = readiness(project, name)
    chosen = {row.who for row in found.rows if row.status == "complete"}
    with project.catalog.read() as connection:
        mirror, inputs = today(project, connection)
    within, kin = found.pairing.within, inputs.kin
    ids: dict[Level, list[str]] = {}
    for level in ENTITY_LEVELS[rank(within) :]:
        above, usable = kin.above(level, within).tolist(), kin.usable[level].tolist()
        of = mirror.entities[within].ids
        names = mirror.entities[level].ids
        ids[level] = [name for name, up, may in zip(names, above, usable, strict=True) if may and of[up] in chosen]
    return ids


class _Gathered:
    """Assays by group, value and the entity that has the value: their usability."""

    def __init__(self, connection: Connection, kin: Kin, pairing: Pairing) -> None:
        self.pairing, self.kin = pairing, kin
        self.level, _, self.column = pairing.by.partition(".")
        said = _attributes(connection, {self.level, *(name.partition(".")[0] for name in pairing.where)})
        own = kin.above("assay", self.level).tolist()
        group, usable = kin.above("assay", pairing.within).tolist(), kin.usable["assay"].tolist()
        matches = _matching(kin, pairing, said)
        self.groups: dict[int, dict[str, dict[int, list[bool]]]] = defaultdict(lambda: defaultdict(dict))
        for assay, (unit, up) in enumerate(zip(own, group, strict=True)):
            value = _text(said[self.level][unit].get(self.column))
            if value and matches[assay] and (not pairing.order or value in pairing.order):
                self.groups[up][value].setdefault(unit, []).append(usable[assay])
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
        return Row(who, cells, status, passing, enough, self._reason(cells))

    def _cell(self, units: Mapping[int, list[bool]]) -> Cell:
        """By the policy for several; whoever may not be used is named in any case."""
        usable = [unit for unit, assays in units.items() if any(assays)]
        spoilt = [unit for unit, assays in units.items() if not all(assays)]
        barred = spoilt if self.pairing.several == "worst" else [unit for unit in units if unit not in usable]
        passes = bool(usable) and (self.pairing.several == "any" or not barred)
        return Cell(self._names(usable), self._names(barred), passes)

    def _names(self, places: Iterable[int]) -> tuple[str, ...]:
        return tuple(self.kin.entities[self.level].ids[at] for at in places)

    def _reason(self, cells: Mapping[str, Cell]) -> str:
        said = [f"no assay of {value}" for value, cell in cells.items() if not cell.is_there]
        for value, cell in cells.items():
            if cell.barred:
                some = "an assay of " if self.pairing.several == "worst" else ""
                what = f"{value}: {some}{', '.join(cell.barred)} may not be used"
                said.append(what + (f", {', '.join(cell.usable)} may" if cell.usable and cell.passes else ""))
        return "; ".join(said)


def _attributes(connection: Connection, levels: Iterable[str]) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for level in levels:
        rows = connection.execute(
            select(entity.c.id, entity.c.attributes).where(entity.c.level == level).order_by(entity.c.seq)
        )
        found[level] = [{**json.loads(row.attributes), "id": row.id} for row in rows]
    return found


def _matching(kin: Kin, pairing: Pairing, said: Mapping[str, Sequence[Mapping[str, object]]]) -> list[bool]:
    """Which assays have what `where` says, themselves or above."""
    found = [True] * len(kin.entities["assay"])
    for name, wanted in pairing.where.items():
        level, _, column = name.partition(".")
        has = [_text(one.get(column)) == wanted for one in said[level]]
        found = [ok and has[up] for ok, up in zip(found, kin.above("assay", level).tolist(), strict=True)]
    return found


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else canonical(value).decode()
