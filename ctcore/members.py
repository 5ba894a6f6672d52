"""⑦ Why a member of one node came or went: where it belongs today, what it lacks, or that it was not there then."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from sqlalchemy import Connection, func, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import artifact, entity, materialization
from ctcore.cohorts import at_level, linked, member_of
from ctcore.project import Project
from ctcore.reasons import Reason, Verdict
from ctcore.step import Step


def came_and_went(project: Project, verdict: Verdict) -> list[str]:
    """A sentence a member, in the order of the reasons: a few statements a step that members come from."""
    by_step: dict[str, list[Reason]] = defaultdict(list)
    for reason in verdict.reasons:
        if reason.kind in ("member-added", "member-removed") and reason.node is not None:
            by_step[reason.node[0]].append(reason)
    said: list[str] = []
    with project.catalog.read() as connection:
        for name, reasons in by_step.items():
            keys = {reason.node[1] for reason in reasons if reason.node}
            why = _Why(project, connection, verdict, project.steps[name], keys)
            said += [f"{reason}: {why.of(reason)}" for reason in reasons]
    return said


class _Why:
    """What is known of some entities, looked up at once."""

    def __init__(self, project: Project, connection: Connection, verdict: Verdict, up: Step, keys: set[str]) -> None:
        self.verdict, self.up = verdict, up
        self.step = project.steps[verdict.asset]
        row = at_level(up.level)
        mine = in_keys(row.c.id, keys, project.dialect)
        nodes = project.inputs.nodes(up, keys)
        self.known = set(connection.execute(select(row.c.id).where(row.c.level == up.level, mine)).scalars())
        self.usable = set(connection.execute(select(row.c.id).where(member_of(row, up.level), mine)).scalars())
        self.whole = set(connection.execute(select(nodes.c.partition)).scalars())
        self.above = dict(self._above(connection, keys, project.dialect))
        self.made = self._made(connection, keys, project.dialect)
        own = (artifact.c.asset == verdict.asset) & (artifact.c.partition == verdict.partition)
        self.own = connection.execute(select(artifact.c.materialization).where(own)).scalar() or 0

    def _above(self, connection: Connection, keys: set[str], dialect: str) -> Iterator[tuple[str, str]]:
        if self.step.level == "cohort":
            return
        low, high = entity.alias(), entity.alias()
        found = select(low.c.id, high.c.id).where(
            member_of(low, self.up.level),
            in_keys(low.c.id, keys, dialect),
            member_of(high, self.step.level),
            linked(low, self.up.level, high, self.step.level),
        )
        yield from ((row[0], row[1]) for row in connection.execute(found))

    def _made(self, connection: Connection, keys: set[str], dialect: str) -> Mapping[str, int]:
        made = materialization.c
        first = select(made.partition, func.min(made.id)).where(made.asset == self.up.name)
        rows = connection.execute(first.where(in_keys(made.partition, keys, dialect)).group_by(made.partition))
        return {row[0]: row[1] for row in rows}

    def of(self, reason: Reason) -> str:
        key = reason.node[1] if reason.node else ""
        return self._came(key) if reason.kind == "member-added" else self._went(key)

    def _came(self, key: str) -> str:
        if key not in self.made:
            return "it was never made"
        return "it was made since then" if self.made[key] > self.own else "it was there then, and not chosen"

    def _went(self, key: str) -> str:
        who = f"{self.up.level} {key}"
        if key not in self.known:
            return f"{who} is not registered"
        if key not in self.usable:
            return f"{who} is not usable"
        if key not in self.whole:
            return f"{who} has not what {self.up.name} needs"
        if self.step.level == "cohort":
            return f"the rule of cohort {self.verdict.partition} does not choose it"
        if self.above.get(key) != self.verdict.partition:
            return f"{who} belongs to {self.step.level} {self.above.get(key)}"
        return f"{self.step.name} does not take it any more"
