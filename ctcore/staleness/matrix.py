"""The completeness matrix (entities by steps) of `ct status`, and no more than it needs."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from ctcore.catalog.member_roles import role_counts
from ctcore.governance.masking import UNMASKED, Mask
from ctcore.model.levels import LEVELS, Level
from ctcore.project import Project
from ctcore.snapshot.snapshot import Snapshot
from ctcore.staleness.verdicts import Verdicts, evaluate


@dataclass(frozen=True)
class Matrix:
    """One level: its steps as columns, its entities as rows, a state a cell."""

    level: Level
    steps: tuple[str, ...]
    rows: Sequence[tuple[str, str, Sequence[str]]]
    counts: dict[str, dict[str, int]]
    hidden: int
    accepted: Mapping[str, Set[str]]
    """By step, the fresh ones that are so because somebody accepted what differs."""


def matrix(
    project: Project, limit: int | None = 40, seen: Mask = UNMASKED, keys: Mapping[str, set[str]] | None = None
) -> list[Matrix]:
    """The completeness matrix: one table for each level with steps, of at most `limit` rows. Hidden entities are
    counted and have no row. `keys`: only these nodes, by step."""
    verdicts = evaluate(project)
    found = []
    for level in (*reversed(LEVELS[:3]), "cohort"):
        found.append(_matrix(project, verdicts, level, limit, seen, keys))
    return [one for one in found if one.steps]


def _matrix(
    project: Project,
    verdicts: Verdicts,
    level: Level,
    limit: int | None,
    mask: Mask,
    keys: Mapping[str, set[str]] | None,
) -> Matrix:
    steps = tuple(s.name for s in project.steps if s.level == level and (keys is None or s.name in keys))
    hidden = mask.hidden_partitions(level) if mask else set[str]()
    entities = _entities(verdicts.state.snapshot, level) if steps else []
    columns = [verdicts.states(name) for name in steps]
    counts = {name: {str(k): v for k, v in verdicts.count(name).items()} for name in steps}
    seen: Sequence[int] = range(len(entities))
    if keys is not None:
        chosen = set[str]().union(*(keys[name] for name in steps))
        seen = [at for at, (_, who) in enumerate(entities) if who in chosen]
        mine = [Counter(str(column[at]) for at in seen) for column in columns]
        counts = {name: {"fresh": 0, **some} for name, some in zip(steps, mine, strict=True)}
    seen = [at for at in seen if entities[at][1] not in hidden] if hidden else seen
    shown = seen if limit is None else seen[:limit]
    rows = [(entities[at][0], entities[at][1], [column[at] for column in columns]) for at in shown]
    accepted = {name: verdicts.accepted[name].keys() - hidden for name in steps}
    return Matrix(level, steps, rows, counts, len(seen) - len(shown), accepted)


def cohorts_in_full(
    project: Project, seen: Mask, keys: Mapping[str, set[str]] | None = None
) -> dict[str, dict[str, dict[str, Any]]]:
    """For cohort artifacts, by step and cohort: all reasons of each that is not fresh (`causes`), and the number of
    members of each role in the current artifact (`roles`)."""
    steps = [step for step in project.steps if step.level == "cohort" and (keys is None or step.name in keys)]
    verdicts = evaluate(project)
    causes = {step.name: _causes(verdicts, step.name, seen, keys) for step in steps}
    with project.catalog.read() as connection:
        known = role_counts(connection, [step.name for step in steps if step.role is not None])
    roles: dict[str, dict[str, Any]] = {step.name: {} for step in steps if step.role is not None}
    for (step_name, who), counts in known.items():
        roles[step_name][who] = counts
    return {"causes": causes, "roles": roles}


def _causes(verdicts: Verdicts, step: str, seen: Mask, keys: Mapping[str, set[str]] | None) -> dict[str, list[str]]:
    return {
        one.partition: [seen.mask_words(reason.sentence) for reason in one.reasons]
        for one in verdicts.listed(step, None if keys is None else keys[step])
    }


def _entities(snapshot: Snapshot, level: Level) -> list[tuple[str, str]]:
    """(parent, ID), in the order of registration."""
    if level == "cohort":
        return [("", name) for name in snapshot.shape.cohorts]
    mine = snapshot.entities[level]
    if level == "patient":
        return [("", name) for name in mine.ids]
    above = snapshot.entities[LEVELS[LEVELS.index(level) - 1]].ids
    return [(above[at], name) for at, name in zip(mine.parents.tolist(), mine.ids, strict=True)]
