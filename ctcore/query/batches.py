"""Which batches (runs, flow cells: a column of assays) fed which specimens, and which results contain them."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select

from ctcore.catalog.attribute_sql import attribute
from ctcore.catalog.tables import entity
from ctcore.config.settings import Settings
from ctcore.errors import Usage
from ctcore.project import Project
from ctcore.query.readable import Gate
from ctcore.snapshot.versions import Places

USUAL = ("batch", "run", "flowcell", "batch_id", "run_id", "flowcell_id")
NONE = "(blank)"


@dataclass(frozen=True)
class Batch:
    """Assays with one value of the column. `merged` are those of its specimens that other batches fed, too;
    `artifacts`, the nodes of today that were made directly from results of its assays."""

    name: str
    assays: tuple[str, ...]
    specimens: tuple[str, ...]
    patients: tuple[str, ...]
    merged: tuple[str, ...]
    artifacts: int


@dataclass(frozen=True)
class Feeding:
    """All batches by name, and of every specimen how many assays of each batch fed it. `by` is the assay's column."""

    by: str
    batches: Sequence[Batch]
    specimens: Mapping[str, Mapping[str, int]]

    @property
    def merges(self) -> dict[str, Mapping[str, int]]:
        """Specimens that several batches fed."""
        return {who: some for who, some in self.specimens.items() if len(some) > 1}


def column_of(settings: Settings, by: str | None) -> str:
    """The assay's column that is meant; without one, the first of the usual names that is declared."""
    declared = settings.levels["assay"].columns
    if by is None:
        found = next((name for name in USUAL if name in declared), None)
        if found is None:
            listed = ", ".join(f"assay.{name}" for name in declared) or "none yet"
            raise Usage(f"which column tells batches apart? --by assay.COLUMN; declared: {listed}")
        return found
    name = by.removeprefix("assay.")
    if name not in declared:
        raise Usage(f"--by {by}: no such column of assays; declared: {', '.join(declared) or 'none'}")
    return name


def feeding_of(gate: Gate, by: str | None = None) -> Feeding:
    """The batches of everybody who may be read. One statement reads the column; the rest are operations on columns."""
    name = column_of(gate.project.settings, by)
    shown = np.flatnonzero(gate.shows("assay"))
    values = _values(gate, name)
    assays, specimens, patients = (gate.snapshot.entities[level] for level in ("assay", "specimen", "patient"))
    above = assays.parents
    top = specimens.parents[above] if len(above) else above
    members: dict[str, list[int]] = defaultdict(list)
    fed: dict[str, Counter[str]] = defaultdict(Counter)
    for at in shown.tolist():
        members[values[at]].append(at)
        fed[specimens.ids[above[at]]][values[at]] += 1
    made = _made_from(gate, values)
    batches = []
    for batch in sorted(members, key=lambda one: (one == NONE, one)):
        mine = members[batch]
        of = tuple(dict.fromkeys(specimens.ids[at] for at in above[mine].tolist()))
        batches.append(
            Batch(
                batch,
                tuple(assays.ids[at] for at in mine),
                of,
                tuple(dict.fromkeys(patients.ids[at] for at in top[mine].tolist())),
                tuple(who for who in of if len(fed[who]) > 1),
                made[batch],
            )
        )
    return Feeding(name, batches, fed)


def _values(gate: Gate, column: str) -> list[str]:
    """By position, the batch of each assay."""
    said = attribute(entity, column, gate.project.dialect)
    rows = gate.connection.execute(select(said).where(entity.c.level == "assay").order_by(entity.c.seq)).scalars()
    return [_shown(text) for text in rows]


def _shown(text: str) -> str:
    value = json.loads(text)
    return NONE if value is None else str(value)


def _made_from(gate: Gate, values: Sequence[str]) -> Counter[str]:
    """How many artifacts of other levels take a batch's assays directly, according to the ledger."""
    names = sorted(set(values))
    code = np.searchsorted(np.array(names), np.array(values)) if values else np.zeros(0, np.int64)
    found: Counter[str] = Counter()
    for step, owner, source in _taken(gate):
        clean = gate.is_clean(gate.project.steps[step])[owner]
        pairs = np.unique(np.stack((owner[clean], code[source[clean]])), axis=1)
        for at, n in zip(*np.unique(pairs[1], return_counts=True), strict=True):
            found[names[int(at)]] += int(n)
    return found


def _taken(gate: Gate) -> Iterator[tuple[str, Places, Places]]:
    """By step of another level: which node took which assay, over all its inputs."""
    levels = gate.snapshot.shape.levels
    for step in gate.project.steps:
        made = gate.snapshot.made[step.name]
        roles = [used for role, used in made.used.items() if levels.get(role[1]) == "assay" and step.level != "assay"]
        places = [used.pairs(np.arange(len(made.recipe))) for used in roles]
        if roles:
            owner = np.concatenate([one[0] for one in places])
            source = np.concatenate([used.source[one[1]] for used, one in zip(roles, places, strict=True)])
            yield step.name, owner[source >= 0], source[source >= 0]


def specimen_batches(project: Project, specimen: str) -> list[tuple[str, str]]:
    """The assays of one specimen with their batches; empty if no column names batches."""
    if not set(USUAL) & set(project.settings.levels["assay"].columns):
        return []
    name = column_of(project.settings, None)
    parent = entity.alias()
    said = attribute(entity, name, project.dialect)
    with project.catalog.read() as connection:
        rows = connection.execute(
            select(entity.c.id, said)
            .join(parent, parent.c.seq == entity.c.parent)
            .where(parent.c.level == "specimen", parent.c.id == specimen)
            .order_by(entity.c.seq)
        ).all()
    return [(row[0], _shown(row[1])) for row in rows]
