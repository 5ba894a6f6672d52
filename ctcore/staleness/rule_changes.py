"""Members that came or went because the rule of their cohort is another one than when the artifact was made."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ctcore.cohorts.rule_history import hierarchy_of, other_rules
from ctcore.inputs.resolve import Inputs, ResolvedInput
from ctcore.model.cohort_rule import Cohort, rule_change_text
from ctcore.model.levels import Level
from ctcore.model.node import Node
from ctcore.model.reasons import Kind
from ctcore.snapshot.arrays import Flags
from ctcore.snapshot.hierarchy import Hierarchy, in_cohort
from ctcore.snapshot.versions import Places
from ctcore.step import Step

if TYPE_CHECKING:
    from ctcore.staleness.evaluate import Evaluator


class RuleChange:
    """Some artifacts of cohorts, by place: the rules by which they were made, where today's are others."""

    def __init__(self, inputs: Inputs, rules: Mapping[int, Cohort], hierarchy: Hierarchy | None) -> None:
        self.inputs, self.rules, self.hierarchy = inputs, rules, hierarchy
        self._flags: dict[tuple[str, str], Flags] = {}

    @classmethod
    def of(cls, judge: "Evaluator", step: Step, places: Places) -> "RuleChange":
        """One look for all of them; none where all were made by the rules of today."""
        if step.level != "cohort" or not len(places):
            return cls(judge.inputs, {}, None)
        made = judge.snapshot.made[step.name].materialization.tolist()
        rules = other_rules(judge.connection, made, list(judge.inputs.settings.cohorts.values()))
        return cls(judge.inputs, rules, hierarchy_of(judge.connection, list(rules.values())) if rules else None)

    def reason_words(self, want: ResolvedInput, place: int, kind: Kind, node: Node) -> str:
        """The reason for a member that only one of the two rules selects; empty for any other."""
        rule = self.rules.get(place)
        if rule is None or self.hierarchy is None or kind not in ("member-added", "member-removed"):
            return ""
        cohort = list(self.inputs.settings.cohorts.values())[place]
        level = self.inputs.snapshot.shape.levels[want.asset]
        at = self.inputs.snapshot.locate(want.asset, [node[1]])[0]
        was, now = self._chosen(self.hierarchy, level, rule), self._chosen(self.inputs.hierarchy, level, cohort)
        if not 0 <= at < min(len(was), len(now)) or was[at] == now[at]:
            return ""
        return f", {rule_change_text(rule, cohort)}"

    def _chosen(self, hierarchy: Hierarchy, level: str, cohort: Cohort) -> Flags:
        if (level, cohort.version) not in self._flags:
            chosen: Any = level
            found: Level = chosen
            self._flags[level, cohort.version] = in_cohort(hierarchy, found, cohort)
        return self._flags[level, cohort.version]
