"""⑦ Why a member of one node came or went: where it belongs today, what it lacks, or that it was not there then."""

from collections import defaultdict
from collections.abc import Mapping

from sqlalchemy import Connection, func, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import materialization
from ctcore.excluded import why_excluded, why_not_used
from ctcore.project import Project
from ctcore.reasons import Reason, Verdict
from ctcore.standing import today
from ctcore.step import Step
from ctcore.words import Named, Plain, Words, joined


def came_and_went(project: Project, verdict: Verdict) -> list[Words]:
    """A sentence a member, in the order of the reasons: a few statements a step that members come from."""
    by_step: dict[str, list[Reason]] = defaultdict(list)
    for reason in verdict.reasons:
        if reason.kind in ("member-added", "member-removed") and reason.node is not None:
            by_step[reason.node[0]].append(reason)
    said: list[Words] = []
    with project.catalog.read() as connection:
        for name, reasons in by_step.items():
            keys = {reason.node[1] for reason in reasons if reason.node}
            why = _Why(project, connection, verdict, project.steps[name], keys)
            said += [Words(reason.sentence, ": ", why.of(reason)) for reason in reasons]
    return said


class _Why:
    """What is known of some entities, looked up at once."""

    def __init__(self, project: Project, connection: Connection, verdict: Verdict, up: Step, keys: set[str]) -> None:
        self.connection, self.verdict, self.up = connection, verdict, up
        self.step = project.steps[verdict.asset]
        self.mirror, self.inputs = today(project, connection)
        self.made = self._made(connection, keys)
        place = self.mirror.locate(verdict.asset, [verdict.partition])[0]
        self.own = int(self.mirror.made[verdict.asset].materialization[place])

    def _made(self, connection: Connection, keys: set[str]) -> Mapping[str, int]:
        made = materialization.c
        first = select(made.partition, func.min(made.id)).where(made.asset == self.up.name)
        rows = connection.execute(first.where(in_keys(made.partition, keys)).group_by(made.partition))
        return {row[0]: row[1] for row in rows}

    def of(self, reason: Reason) -> Words:
        key = reason.node[1] if reason.node else ""
        return self._came(key) if reason.kind == "member-added" else self._went(key)

    def _came(self, key: str) -> Words:
        if key not in self.made:
            return Words("it was never made")
        return Words("it was made since then" if self.made[key] > self.own else "it was there then, and not chosen")

    def _went(self, key: str) -> Words:
        who = Named((self.up.level, key), f"{self.up.level} {key}")
        place = self.mirror.locate(self.up.name, [key])[0]
        if place < 0:
            return Words(who, " is not registered")
        if self.up.level != "cohort":
            barred = why_not_used(self.connection, self.inputs, self.step.name, self.up.level, place)
            if barred:
                return joined(one.words for one in barred)
        if not self.inputs.nodes(self.up)[place]:
            why = why_excluded(self.connection, self.inputs, self.up, [place])[place]
            return joined(one.words if one.kind == "excluded" else Words(who, " ", one.words) for one in why)
        if self.step.level == "cohort":
            return Words(Plain(f"the rule of cohort {self.verdict.partition} does not choose it"))
        above = self.mirror.name(self.step.name, int(self.inputs.kin.above(self.up.level, self.step.level)[place]))
        if above != self.verdict.partition:
            return Words(who, " belongs to ", Named((self.step.level, above), f"{self.step.level} {above}"))
        return Words(Plain(f"{self.step.name} does not take it any more"))
