"""Members of a cohort today, and at the making of each of its artifacts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ctcore.catalog.member_roles import role_counts
from ctcore.cohorts.rule_history import other_rules
from ctcore.governance.masking import WITHHELD
from ctcore.model.cohort_rule import rule_change_text
from ctcore.query.readable import Gate
from ctcore.staleness.verdicts import Verdicts
from ctcore.step import Step


@dataclass(frozen=True)
class Membership:
    """One artifact of a cohort, by one of its inputs: members then and now. `withheld` went and may not be used."""

    cohort: str
    step: str
    input: str
    level: str
    state: str
    then: int
    now: int
    came: tuple[str, ...]
    went: tuple[str, ...]
    withheld: int
    roles: Mapping[str, int]
    ruled: str = ""
    """How the rule has changed since it was made, in words."""

    @property
    def roles_said(self) -> str:
        return ", ".join(f"{n} {role}" for role, n in self.roles.items())

    @property
    def said(self) -> str:
        hidden = f"{self.withheld} × {WITHHELD}" if self.withheld else ""
        gone = ", ".join([*self.went[:10], *(["…"] if len(self.went) > 10 else []), *([hidden] if hidden else [])])
        come = ", ".join([*self.came[:10], *(["…"] if len(self.came) > 10 else [])])
        parts = (f"came: {come}" if come else "", f"went: {gone}" if gone else "", self.ruled)
        return "; ".join(part for part in parts if part)


def memberships(gate: Gate, verdicts: Verdicts, cohort: str | None = None) -> Iterator[Membership]:
    """Every artifact of the cohorts, or of one, that takes members; without members if it was never made."""
    cohorts = gate.snapshot.shape.cohorts
    roles = role_counts(gate.connection, [step.name for step in gate.project.steps if step.role is not None])
    for step in gate.project.steps:
        if step.level != "cohort":
            continue
        states, ruled = verdicts.states(step.name), _rule_differences(gate, step)
        for want in gate.inputs.wants(step):
            if want.what != "step" or not want.fan_in:
                continue
            level = gate.snapshot.shape.levels[want.asset]
            used = gate.snapshot.made[step.name].used.get(want.role)
            for at in (cohorts.index(cohort),) if cohort else range(len(cohorts)):
                today = want.pairs(np.array([at]))[1]
                then = used.source[used.pairs(np.array([at]))[1]] if used is not None else today[:0]
                gone = np.setdiff1d(then, today)
                seen = [int(one) for one in gone if one >= 0 and gate.shows(level)[one]]
                came: list[int] = np.setdiff1d(today, then).tolist()
                names = list(gate.snapshot.names(want.asset))
                yield Membership(
                    cohorts[at],
                    step.name,
                    want.input,
                    level,
                    states[at],
                    len(then),
                    len(today),
                    tuple(names[one] for one in came),
                    tuple(names[one] for one in seen),
                    len(gone) - len(seen),
                    roles.get((step.name, cohorts[at]), {}),
                    ruled.get(at, ""),
                )


def _rule_differences(gate: Gate, step: Step) -> dict[int, str]:
    """By place of the cohort: how its rule differs from the one by which the current artifact was made."""
    made = gate.snapshot.made[step.name].materialization.tolist()
    today = list(gate.project.settings.cohorts.values())
    return {at: rule_change_text(old, today[at]) for at, old in other_rules(gate.connection, made, today).items()}
