"""Why one member of a node came or went: where it belongs today, what it lacks, or that it was not there before."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, func, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import materialization
from ctcore.inputs.current import current_inputs
from ctcore.inputs.exclusions import why_excluded, why_none_is_used
from ctcore.model.masked_text import NodeName, Plain, Words, join_words
from ctcore.model.reasons import Reason, Verdict
from ctcore.project import Project
from ctcore.step import Step


def membership_sentences(project: Project, verdict: Verdict) -> list[Words]:
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
            why.look({reason.node[1] for reason in reasons if reason.node and reason.kind == "member-removed"})
            said += [Words(reason.sentence, ": ", why.of(reason)) for reason in reasons]
    return said


class _Why:
    """The facts on some entities, read at once."""

    def __init__(self, project: Project, connection: Connection, verdict: Verdict, up: Step, keys: set[str]) -> None:
        self.connection, self.verdict, self.up = connection, verdict, up
        self.step = project.steps[verdict.asset]
        self.snapshot, self.inputs = current_inputs(project, connection)
        self.made = self._made(connection, keys)
        place = self.snapshot.locate(verdict.asset, [verdict.partition])[0]
        self.own = int(self.snapshot.made[verdict.asset].materialization[place])
        self.barred: Mapping[int, tuple[Reason, ...]] = {}
        self.excluded: Mapping[int, tuple[Reason, ...]] = {}

    def look(self, went: Iterable[str]) -> None:
        """Who bars those that went, and why the step that they came from excludes them: asked of all at once."""
        there = [place for place in self.snapshot.locate(self.up.name, list(went)) if place >= 0]
        if self.up.level != "cohort":
            self.barred = why_none_is_used(self.connection, self.inputs, self.step.name, self.up.level, there)
        able = self.inputs.nodes(self.up)
        others = [place for place in there if not self.barred.get(place) and not able[place]]
        self.excluded = why_excluded(self.connection, self.inputs, self.up, others) if others else {}

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
        who = NodeName((self.up.level, key), f"{self.up.level} {key}")
        place = self.snapshot.locate(self.up.name, [key])[0]
        if place < 0:
            return Words(who, " is not registered")
        if barred := self.barred.get(place):
            return join_words(one.words for one in barred)
        if why := self.excluded.get(place):
            return join_words(one.words if one.kind == "excluded" else Words(who, " ", one.words) for one in why)
        if self.step.level == "cohort":
            return Words(Plain(f"the rule of cohort {self.verdict.partition} does not choose it"))
        above = self.snapshot.name(
            self.step.name, int(self.inputs.hierarchy.ancestors(self.up.level, self.step.level)[place])
        )
        if above != self.verdict.partition:
            return Words(who, " belongs to ", NodeName((self.step.level, above), f"{self.step.level} {above}"))
        return Words(Plain(f"{self.step.name} does not take it any more"))
