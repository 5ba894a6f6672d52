"""ct.toml on automatic runs: `[run] pause` and `budget`, and the `[policy]` of each step."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Policy = Literal["automatic", "ask", "never"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
DEFAULT = "default"
RUN_KEYS = ("pause", "budget")
_BUDGET = ("partitions", "core_hours")


@dataclass(frozen=True)
class Automation:
    """What the staleness sensor may request. A budget covers one day, from midnight UTC; None means no bound."""

    pause: bool = False
    partitions: int | None = None
    core_hours: float | None = None
    policies: Mapping[str, Policy] = field(default_factory=dict)

    def policy(self, step: str) -> Policy:
        return self.policies.get(step) or self.policies.get(DEFAULT) or "automatic"


def read_automation(run: Mapping[str, Any], policies: Mapping[str, Any]) -> tuple[Automation, list[str]]:
    """From `[run]` and `[policy]`, with everything that is wrong there. Whether the steps exist is not known yet."""
    pause, budget, problems = run.get("pause", False), run.get("budget", {}), []
    if not isinstance(pause, bool):
        problems.append(f"[run] pause = {pause!r:.80}: true or false is expected, without quotes")
    if not isinstance(budget, dict):
        problems.append(f"[run] budget = {budget!r:.80}: write budget = {{ partitions = 1000, core_hours = 50 }}")
        budget = {}
    problems += _budget_problems(budget)
    for step, said in policies.items():
        if said not in POLICIES:
            near = difflib.get_close_matches(str(said), POLICIES, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            problems.append(f'[policy] {step} = {said!r:.80}: {hint}it is "automatic", "ask" or "never"')
    if problems:
        return Automation(), problems
    return Automation(pause, budget.get("partitions"), budget.get("core_hours"), dict(policies)), []


def _budget_problems(budget: Mapping[str, Any]) -> Iterator[str]:
    for key, value in budget.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if key not in _BUDGET:
            near = difflib.get_close_matches(key, _BUDGET, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_BUDGET)}"
            yield f"[run] budget: unknown key {key!r}; {hint}"
        elif key == "partitions" and not (number and isinstance(value, int) and value >= 1):
            yield f"[run] budget partitions = {value!r:.80}: a whole number a day, 1 or more; `pause = true` stops all"
        elif key == "core_hours" and not (number and 0 < value <= 1e9):
            yield f"[run] budget core_hours = {value!r:.80}: a number a day, above 0; `pause = true` stops all"


def unknown_steps(automation: Automation, known: Iterable[str]) -> Iterator[str]:
    """The steps of `[policy]` that are none."""
    names = [*known, DEFAULT]
    for step in automation.policies:
        if step not in names:
            near = difflib.get_close_matches(step, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
            yield f"[policy] {step}: no such step; {hint}"
