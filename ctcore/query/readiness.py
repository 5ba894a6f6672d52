"""Readiness of cohorts and pairings as tables, for `ct cohort`, the dashboard and Dagster's UI."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ctcore.cohorts.pairings import Readiness, Status, readiness
from ctcore.cohorts.rule_checks import rule_warnings
from ctcore.cohorts.rule_history import member_counts
from ctcore.inputs.exclusions import why_excluded, why_none_is_used
from ctcore.inputs.resolve import ResolvedInput
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.model.masked_text import NodeName, Plain, QuotedText, Words, join_words
from ctcore.project import Project
from ctcore.query.cohort_members import Membership
from ctcore.query.readable import Gate, level_names
from ctcore.snapshot.hierarchy import in_cohort
from ctcore.step import Step

RULES = ("cohort", "version", *map(level_names, ENTITY_LEVELS), "rule")
ARTIFACTS = ("cohort", "artifact", "input", "of", "state", "members then", "today", "roles", "difference")


def rules(gate: Gate, name: str | None = None) -> list[dict[str, Any]]:
    """Each cohort's rule, its number of members by level, and parts of the rule that match nobody."""
    hierarchy = gate.inputs.hierarchy
    return [
        {
            "cohort": one.name,
            "version": one.version,
            "rule": one.words,
            "members": member_counts(hierarchy, one),
            "doubts": list(rule_warnings(gate.connection, hierarchy, one)),
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
    """One row per group; brackets mark members who may not be used."""
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


def pairings(project: Project, everybody: bool = False, masked: bool = False) -> list[tuple[str, Readiness]]:
    """Every pairing over everybody, and over each cohort that names one: a title and the groups' readiness."""
    found = [
        (f"{name}: {one.by}", readiness(project, name, everybody, masked=masked))
        for name, one in project.settings.pairings.items()
    ]
    for cohort in project.settings.cohorts.values():
        if cohort.pairing is not None:
            ready = readiness(project, cohort.pairing, everybody, cohort=cohort.name, masked=masked)
            found.append((f"{cohort.pairing} in cohort {cohort.name}", ready))
    return found


def open_rows(found: Readiness, most: int) -> list[tuple[str, ...]]:
    """The groups that are not complete, the first ones."""
    return [row for row in pair_rows(found) if row[-2] != "complete"][:most]


def members_left_out(gate: Gate, step: Step, most: int) -> Iterator[Words]:
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
                yield Words(Plain(f"{cohort.name}: "), QuotedText(f"{row.who} {row.status}: {row.reason}"))


def _lacking(gate: Gate, step: Step, want: ResolvedInput, at: int, most: int) -> Iterator[Words]:
    up = gate.project.steps[want.asset]
    level: Level = up.level
    cohort = list(gate.project.settings.cohorts.values())[at]
    chosen = np.flatnonzero(in_cohort(gate.inputs.hierarchy, level, cohort))
    assert want.members is not None
    lacks = np.setdiff1d(chosen, want.members[at])
    if not len(lacks):
        return
    many = f"{len(lacks)} of {len(chosen)} {level}s are not among its {want.input}"
    yield Words(Plain(f"{cohort.name}: {many}"))
    names = gate.snapshot.names(want.asset)
    shown = lacks[:most].tolist()
    barred = why_none_is_used(gate.connection, gate.inputs, step.name, level, shown)
    excluded = why_excluded(gate.connection, gate.inputs, up, [place for place in shown if not barred[place]])
    for place in shown:
        why = barred[place] or excluded[place]
        who = Plain(f"{cohort.name}: "), NodeName((level, str(names[place])), f"{level} {names[place]}")
        yield Words(*who, ": ", join_words(one.words for one in why))
