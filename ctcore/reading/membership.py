"""⑦ Who is in a cohort today, and who was when each of its artifacts was made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ctcore.reading.gate import Gate
from ctcore.roles import counted
from ctcore.staleness import Verdicts
from ctcore.veil import WITHHELD


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

    @property
    def roles_said(self) -> str:
        return ", ".join(f"{n} {role}" for role, n in self.roles.items())

    @property
    def said(self) -> str:
        hidden = f"{self.withheld} × {WITHHELD}" if self.withheld else ""
        gone = ", ".join([*self.went[:10], *(["…"] if len(self.went) > 10 else []), *([hidden] if hidden else [])])
        come = ", ".join([*self.came[:10], *(["…"] if len(self.came) > 10 else [])])
        return "; ".join(part for part in (f"came: {come}" if come else "", f"went: {gone}" if gone else "") if part)


def memberships(gate: Gate, verdicts: Verdicts, cohort: str | None = None) -> Iterator[Membership]:
    """Every artifact of the cohorts, or of one, that takes members; never made: nobody was in it."""
    cohorts = gate.mirror.shape.cohorts
    roles = counted(gate.connection, [step.name for step in gate.project.steps if step.role is not None])
    for step in gate.project.steps:
        if step.level != "cohort":
            continue
        states = verdicts.states(step.name)
        for want in gate.inputs.wants(step):
            if want.what != "step" or not want.fan_in:
                continue
            level = gate.mirror.shape.levels[want.asset]
            used = gate.mirror.made[step.name].used.get(want.role)
            for at in (cohorts.index(cohort),) if cohort else range(len(cohorts)):
                today = want.pairs(np.array([at]))[1]
                then = used.source[used.pairs(np.array([at]))[1]] if used is not None else today[:0]
                gone = np.setdiff1d(then, today)
                seen = [int(one) for one in gone if one >= 0 and gate.shows(level)[one]]
                came: list[int] = np.setdiff1d(today, then).tolist()
                names = list(gate.mirror.names(want.asset))
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
                )
