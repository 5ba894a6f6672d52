"""⑦ Cohorts and pairings as tables: what `ct cohort`, the dashboard and Dagster's UI show of who is ready."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ctcore.cohorts import in_cohort
from ctcore.doubts import doubts
from ctcore.excluded import why_excluded, why_not_used
from ctcore.inputs import Want
from ctcore.pairs import Readiness, Status, readiness
from ctcore.project import Project
from ctcore.reading.gate import Gate, level_names
from ctcore.reading.membership import Membership
from ctcore.rulebook import counts
from ctcore.step import ENTITY_LEVELS, Level, Step
from ctcore.words import Named, Plain, Recorded, Words, joined

RULES = ("cohort", "version", *map(level_names, ENTITY_LEVELS), "rule")
ARTIFACTS = ("cohort", "artifact", "input", "of", "state", "members then", "today", "roles", "difference")


def rules(gate: Gate, name: str | None = None) -> list[dict[str, Any]]:
    """Each cohort's rule, how many of each level are in it, and what in it finds nobody."""
    kin = gate.inputs.kin
    return [
        {
            "cohort": one.name,
            "version": one.version,
            "rule": one.words,
            "members": counts(kin, one),
            "doubts": list(doubts(gate.connection, kin, one)),
        }
        for one in gate.project.settings.cohorts.values()
        if name in (None, one.name)
    ]


def rule_rows(found: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [(one["cohort"], one["version"][:8], *map(str, one["members"].values()), one["rule"]) for one in found]


def artifact_rows(found: Sequence[Membership]) -> list[tuple[str, ...]]:
    return [
        (o.cohort, o.step, o.input, level_names(o.level), o.state, str(o.then), str(o.now), o.roles_said, o.said)
        for o in found
    ]


def pair_columns(found: Readiness) -> tuple[str, ...]:
    return (found.pairing.within, *found.values, "status", "reason")


def pair_rows(found: Readiness, only: Status | None = None) -> list[tuple[str, ...]]:
    """A row a group; in brackets who may not be used."""
    return [
        (
            row.who,
            *(", ".join([*cell.usable, *(f"({one})" for one in cell.barred)]) for cell in row.cells.values()),
            row.status,
            row.reason,
        )
        for row in found.rows
        if only in (None, row.status)
    ]


def pairings(project: Project, everybody: bool = False, discreet: bool = False) -> list[tuple[str, Readiness]]:
    """Every pairing of everybody, and that of each cohort which names one: a title and who is ready."""
    found = [
        (f"{name}: {one.by}", readiness(project, name, everybody, discreet=discreet))
        for name, one in project.settings.pairings.items()
    ]
    for cohort in project.settings.cohorts.values():
        if cohort.pairing is not None:
            ready = readiness(project, cohort.pairing, everybody, cohort=cohort.name, discreet=discreet)
            found.append((f"{cohort.pairing} in cohort {cohort.name}", ready))
    return found


def open_rows(found: Readiness, most: int) -> list[tuple[str, ...]]:
    """The groups that are not complete, the first ones."""
    return [row for row in pair_rows(found) if row[-2] != "complete"][:most]


def not_in(gate: Gate, step: Step, most: int) -> Iterator[Words]:
    """Members by the rule that a cohort's artifact is not made from, with why; and groups that are not complete."""
    for at, cohort in enumerate(gate.project.settings.cohorts.values()):
        for want in gate.inputs.wants(step):
            if want.fan_in and want.members is not None:
                yield from _lacking(gate, step, want, at, most)
        if cohort.pairing is not None:
            ready = readiness(gate.project, cohort.pairing, step=step.name, cohort=cohort.name)
            open_ = [row for row in ready.rows if row.status != "complete"]
            if open_:
                many = f"{len(open_)} of {len(ready.rows)} are not complete in {cohort.pairing}"
                yield Words(Plain(f"{cohort.name}: {many}"))
            for row in open_[:most]:
                yield Words(Plain(f"{cohort.name}: "), Recorded(f"{row.who} {row.status}: {row.reason}"))


def _lacking(gate: Gate, step: Step, want: Want, at: int, most: int) -> Iterator[Words]:
    up = gate.project.steps[want.asset]
    level: Level = up.level
    cohort = list(gate.project.settings.cohorts.values())[at]
    chosen = np.flatnonzero(in_cohort(gate.inputs.kin, level, cohort))
    assert want.members is not None
    lacks = np.setdiff1d(chosen, want.members[at])
    if not len(lacks):
        return
    many = f"{len(lacks)} of {len(chosen)} {level}s are not among its {want.input}"
    yield Words(Plain(f"{cohort.name}: {many}"))
    names = gate.mirror.names(want.asset)
    for place in lacks[:most].tolist():
        barred = why_not_used(gate.connection, gate.inputs, step.name, level, place)
        why = barred or why_excluded(gate.connection, gate.inputs, up, [place])[place]
        who = Plain(f"{cohort.name}: "), Named((level, str(names[place])), f"{level} {names[place]}")
        yield Words(*who, ": ", joined(one.words for one in why))
