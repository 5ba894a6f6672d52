"""⑦ Members that came or went because the rule of their cohort is another one than when the artifact was made."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ctcore.cohort import Cohort, change
from ctcore.cohorts import Kin, in_cohort
from ctcore.inputs import Inputs, Want
from ctcore.mirror.ranges import Flags
from ctcore.mirror.versions import Places
from ctcore.reasons import Kind, Node
from ctcore.rulebook import kin_of, other_rules
from ctcore.step import Level, Step

if TYPE_CHECKING:
    from ctcore.judge import Judge


class Ruled:
    """Some artifacts of cohorts, by place: the rules by which they were made, where today's are others."""

    def __init__(self, inputs: Inputs, rules: Mapping[int, Cohort], kin: Kin | None) -> None:
        self.inputs, self.rules, self.kin = inputs, rules, kin
        self._flags: dict[tuple[str, str], Flags] = {}

    @classmethod
    def of(cls, judge: "Judge", step: Step, places: Places) -> "Ruled":
        """One look for all of them; none where all were made by the rules of today."""
        if step.level != "cohort" or not len(places):
            return cls(judge.inputs, {}, None)
        made = judge.mirror.made[step.name].materialization.tolist()
        rules = other_rules(judge.connection, made, list(judge.inputs.settings.cohorts.values()))
        return cls(judge.inputs, rules, kin_of(judge.connection, list(rules.values())) if rules else None)

    def because(self, want: Want, place: int, kind: Kind, node: Node) -> str:
        """The words for a member that only one of the two rules chooses; nothing of any other."""
        rule = self.rules.get(place)
        if rule is None or self.kin is None or kind not in ("member-added", "member-removed"):
            return ""
        cohort = list(self.inputs.settings.cohorts.values())[place]
        level = self.inputs.mirror.shape.levels[want.asset]
        at = self.inputs.mirror.locate(want.asset, [node[1]])[0]
        was, now = self._chosen(self.kin, level, rule), self._chosen(self.inputs.kin, level, cohort)
        if not 0 <= at < min(len(was), len(now)) or was[at] == now[at]:
            return ""
        return f", {change(rule, cohort)}"

    def _chosen(self, kin: Kin, level: str, cohort: Cohort) -> Flags:
        if (level, cohort.version) not in self._flags:
            chosen: Any = level
            found: Level = chosen
            self._flags[level, cohort.version] = in_cohort(kin, found, cohort)
        return self._flags[level, cohort.version]
