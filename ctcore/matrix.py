"""⑦ The completeness matrix: entities by steps. What `ct status` says, and no more than that needs."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from ctcore.mirror.mirror import Mirror
from ctcore.project import Project
from ctcore.roles import counted
from ctcore.staleness import Verdicts, evaluate
from ctcore.step import LEVELS, Level
from ctcore.veil import UNVEILED, Veil


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
    project: Project, limit: int | None = 40, seen: Veil = UNVEILED, keys: Mapping[str, set[str]] | None = None
) -> list[Matrix]:
    """The completeness matrix: entities by steps, a table a level that has steps. `limit` rows each; whom nobody
    sees is counted, and has no row. `keys`: only these nodes, by step; a step that is not among them has none."""
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
    veil: Veil,
    keys: Mapping[str, set[str]] | None,
) -> Matrix:
    steps = tuple(s.name for s in project.steps if s.level == level and (keys is None or s.name in keys))
    hidden = veil.of(level) if veil else set[str]()
    entities = _entities(verdicts.state.mirror, level) if steps else []
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
    project: Project, seen: Veil, keys: Mapping[str, set[str]] | None = None
) -> dict[str, dict[str, dict[str, Any]]]:
    """Of cohort artifacts, which are few: all reasons in words of each that is not fresh (`causes`), and how many
    members of each role went into what is there (`roles`), by step and cohort."""
    steps = [step for step in project.steps if step.level == "cohort" and (keys is None or step.name in keys)]
    verdicts = evaluate(project)
    causes = {step.name: _causes(verdicts, step.name, seen, keys) for step in steps}
    with project.catalog.read() as connection:
        known = counted(connection, [step.name for step in steps if step.role is not None])
    roles: dict[str, dict[str, Any]] = {step.name: {} for step in steps if step.role is not None}
    for (step_name, who), counts in known.items():
        roles[step_name][who] = counts
    return {"causes": causes, "roles": roles}


def _causes(verdicts: Verdicts, step: str, seen: Veil, keys: Mapping[str, set[str]] | None) -> dict[str, list[str]]:
    return {
        one.partition: [seen.told(reason.sentence) for reason in one.reasons]
        for one in verdicts.listed(step, None if keys is None else keys[step])
    }


def _entities(mirror: Mirror, level: Level) -> list[tuple[str, str]]:
    """(parent, ID), in the order of registration."""
    if level == "cohort":
        return [("", name) for name in mirror.shape.cohorts]
    mine = mirror.entities[level]
    if level == "patient":
        return [("", name) for name in mine.ids]
    above = mirror.entities[LEVELS[LEVELS.index(level) - 1]].ids
    return [(above[at], name) for at, name in zip(mine.parents.tolist(), mine.ids, strict=True)]
