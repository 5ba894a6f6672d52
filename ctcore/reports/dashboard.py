"""`ct dashboard`: the cohort on one page: entities, progress by step, and stale nodes with their reasons."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import select

from ctcore.catalog.tables import entity, result
from ctcore.cohorts.pairings import Readiness
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.model.reasons import Reason, State
from ctcore.query.cohort_members import memberships
from ctcore.query.readable import Gate, level_names
from ctcore.query.readiness import (
    ARTIFACTS,
    RULES,
    artifact_rows,
    open_rows,
    pair_columns,
    pairings,
    rule_rows,
    rules,
)
from ctcore.reports.page import Part, bar, head, page, section, table
from ctcore.reports.palette import LOOKS, ORDER, WORST
from ctcore.staleness.summary import Count, SummaryGroup, group_reasons, overview_of
from ctcore.staleness.verdicts import Verdicts
from ctcore.util.clock import now

ROWS = 400  # entities of a level that are shown one by one
GROUPS = 200  # reasons
_SIGNS = {state: (place, sign) for place, (state, (_, sign, _)) in enumerate(LOOKS.items())}


def dashboard(gate: Gate, verdicts: Verdicts, rows: int = ROWS) -> str:
    """The page, as HTML. Of thousands of entities it shows `rows` a level, those first that are not fresh."""
    project, seen = gate.project, overview_of(gate.project, verdicts)
    life = project.catalog.project_state()
    body = [
        {"note": f"The project is {life.words}." if life.state != "active" else ""},
        {"note": gate.audit if any(gate.left_out.values()) else ""},
        {"cards": list(_counts(gate, seen.counts))},
        _completeness(seen.counts),
        *_cohorts(gate, verdicts),
        *(_pairing(title, found, rows) for title, found in pairings(project, gate.everybody, masked=True)),
        *_recorded(gate),
        *_reasons(gate, verdicts),
        *(_matrix(gate, verdicts, level, rows) for level in ORDER if any(s.level == level for s in project.steps)),
    ]
    foot = f"ct dashboard of {project.id}, {now()}. This file asks nothing of the network."
    return page(project.settings.name, f"{project.id} · {now()[:16].replace('T', ' ')} UTC", body, foot)


def _counts(gate: Gate, counts: Sequence[Count]) -> Iterator[tuple[str, str]]:
    for level in ENTITY_LEVELS:
        shown = int(gate.shows(level).sum())
        yield f"{shown:,}", level if shown == 1 else level_names(level)
    nodes, fresh = sum(one.nodes for one in counts), sum(one.fresh for one in counts)
    # rounded down: only what is whole is 100 %
    yield f"{1000 * fresh // nodes / 10:g} %" if nodes else "–", f"fresh: {fresh:,} of {nodes:,} nodes"
    yield f"{sum(one.open for one in counts):,}", "not fresh"
    accepted = sum(one.accepted for one in counts)
    if accepted:
        yield f"{accepted:,}", "fresh because a difference was accepted"


def _completeness(counts: Sequence[Count]) -> Part:
    heads = ("step", "level", head("fresh"), head("of"), "", "never made", "changed", "about to change")
    rows = []
    for one in counts:
        shares = [("fresh", one.fresh), *((state, one.states.get(state, 0)) for state in LOOKS if state != "fresh")]
        shown = bar([(state, n) for state, n in shares if n])
        rows.append([one.step, one.level, one.fresh, one.nodes, shown, one.missing, one.changed, one.waiting])
    listed = table([*heads[:5], *map(head, heads[5:])], rows, "full bars")
    return section("Completeness", "How many of a step's nodes are in which state.", _legend(), listed)


def _cohorts(gate: Gate, verdicts: Verdicts) -> Iterator[Part]:
    ruled, made = rules(gate), list(memberships(gate, verdicts))
    lead = "Who satisfies each rule today and may be used."
    doubts = [{"note": said} for one in ruled for said in one["doubts"]]
    rows = _cells(rule_rows(ruled), {2, 3, 4})
    yield section("Who is in which cohort", lead, *doubts, table(_heads(RULES, {2, 3, 4}), rows))
    if made:
        lead = "Who was a member when each cohort artifact was made, and who would be today."
        yield section(
            "Members then and today", lead, table(_heads(ARTIFACTS, {5, 6}), _cells(artifact_rows(made), {5, 6}))
        )


def _pairing(title: str, found: Readiness, most: int) -> Part:
    """How many are complete, and the others one by one."""
    open_ = len(found.rows) - found.counts["complete"]
    said = f"{most:,} of {open_:,} that are not complete. `ct cohort --pairing {found.pairing.name}` has all."
    lead = f"{found.words}; {found.without} without any of it. In brackets: may not be used."
    rows = _cells(open_rows(found, most), set())
    listed = [table(pair_columns(found), rows)] if rows else []
    return section(f"Pairing {title}", lead, {"note": said if open_ > most else ""}, *listed)


def _cells(rows: Iterable[Sequence[str]], numbers: set[int]) -> list[list[Any]]:
    """The last cell of a row is in words."""
    return [
        [
            *(int(text) if at in numbers else text for at, text in enumerate(row[:-1])),
            {"text": row[-1], "class": "words"},
        ]
        for row in rows
    ]


def _heads(names: Sequence[str], numbers: set[int]) -> list[Any]:
    return [head(name) if at in numbers else name for at, name in enumerate(names)]


def _recorded(gate: Gate) -> Iterator[Part]:
    """How many have a result of each analysis that is made elsewhere."""
    analyses = gate.project.settings.analyses
    if not analyses:
        return
    shown = {level: gate.names(level) for level in ENTITY_LEVELS}
    found = select(result.c.analysis, entity.c.level, entity.c.id).join(entity, entity.c.seq == result.c.entity)
    counts = Counter(name for name, level, who in gate.connection.execute(found.distinct()) if who in shown[level])
    rows = [[one.name, one.level, counts[one.name], int(gate.shows(one.level).sum())] for one in analyses.values()]
    heads = ["analysis", "level", head("recorded"), head("of")]
    yield section("Recorded", "How many have a result of an analysis that is made elsewhere.", table(heads, rows))


def _reasons(gate: Gate, verdicts: Verdicts) -> Iterator[Part]:
    found = _groups(gate, verdicts)
    if not found:
        return
    rows = [[one.step, one.nodes, one.kind, {"text": one.text, "class": "words"}] for one in found[:GROUPS]]
    more = f"… and {len(found) - GROUPS} more reasons; `ct stale --why` has them all." if len(found) > GROUPS else ""
    lead = "Nodes that have a reason in common are one line."
    listed = table(["step", head("nodes"), "reason", "in words"], rows)
    yield section("Not fresh, and why", lead, {"note": more}, listed)


def _groups(gate: Gate, verdicts: Verdicts) -> list[SummaryGroup]:
    """The groups of `ct stale --why`, without the names of excluded people."""
    found: dict[tuple[str, Reason], list[str]] = defaultdict(list)
    for step in gate.project.steps:
        for one in verdicts.listed(step.name):
            for reason in one.reasons if one.state != "excluded" else ():
                found[step.name, gate.mask.reason(reason)].append(one.partition)
    return group_reasons(found)


def _matrix(gate: Gate, verdicts: Verdicts, level: Level, most: int) -> Part:
    """Entities by steps."""
    steps = [step.name for step in gate.project.steps if step.level == level]
    states = [verdicts.states(name) for name in steps]
    codes = np.array([[_SIGNS[state][0] for state in column] for column in states])
    shown = np.flatnonzero(gate.shows(level)[: codes.shape[1]])
    order = shown[np.argsort(_urgency(codes[:, shown]), kind="stable")][:most]
    parents = _parents(gate, level)
    names, cells = list(gate.snapshot.names(steps[0])), list(zip(*states, strict=True))
    rows = [[*([str(parents[at])] if parents else []), names[at], *map(_cell, cells[at])] for at in order.tolist()]
    above = ENTITY_LEVELS[ENTITY_LEVELS.index(level) - 1] if parents else ""
    heads = [*([above] if parents else []), level, *(head(name, "s") for name in steps)]
    capped = len(shown) > most
    said = f"{most:,} of {len(shown):,}: those first in which something is not fresh. `ct status --all` has all."
    title = level_names(level).capitalize()
    listed = table(heads, rows, "matrix", row_heads=1 + bool(parents))
    return section(title, f"{title} by steps.", {"note": said if capped else ""}, listed)


def _urgency(codes: np.ndarray) -> np.ndarray:
    """0 for an entity that most asks for a person, by the worst of its states."""
    ranks = np.array([WORST.index(state) for state in LOOKS])
    return ranks[codes].min(axis=0) if codes.size else np.zeros(codes.shape[1], np.int64)


def _parents(gate: Gate, level: Level) -> Sequence[str]:
    if level in ("patient", "cohort"):
        return []
    above = gate.snapshot.entities[ENTITY_LEVELS[ENTITY_LEVELS.index(level) - 1]].ids
    return [above[at] for at in gate.snapshot.entities[level].parents.tolist()]


def _cell(state: State) -> Mapping[str, str]:
    return {"text": _SIGNS[state][1], "class": f"s {state}", "title": state}


def _legend() -> Part:
    """What the colours and signs mean."""
    found = LOOKS.items()
    return {"legend": [{"class": state, "sign": sign, "text": f"{state}: {said}"} for state, (_, sign, said) in found]}
