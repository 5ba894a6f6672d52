"""A plan as text and rows, the same in the shell, in Dagster's UI and in a file."""

from collections.abc import Iterator

from ctcore.planning.plan import Plan, StepPlan

NO_HISTORY = "no history"
COLUMNS = ("step", "level", "at most", "expected", "reused", "core-hours", "elapsed", "past runs", "other content")
REASONS = ("step", "nodes", "why", "for example")


def rows(plan: Plan) -> list[tuple[str, ...]]:
    """What would run or be reused, by step. Core-hours and elapsed time refer to the upper bound."""
    return [_row(plan, one) for one in plan.steps if one.run or one.reuse]


def _row(plan: Plan, one: StepPlan) -> tuple[str, ...]:
    past = one.changes
    return (
        one.step,
        one.level,
        str(len(one.run)),
        number(one.expected),
        str(len(one.reuse)),
        NO_HISTORY if (hours := one.core_hours(len(one.run))) is None else number(hours),
        NO_HISTORY if (seconds := one.elapsed_s(len(one.run), plan.at_once)) is None else duration(seconds),
        str(one.cost.runs),
        f"{past.gave_other} of {past.other_call}" if past.other_call else NO_HISTORY,
    )


def reason_rows(plan: Plan) -> list[tuple[str, ...]]:
    """Why: grouped reasons, with how many nodes have each and one of them."""
    return [
        (one.step, str(group.nodes), f"{group.kind}: {group.words}", group.example)
        for one in plan.steps
        for group in one.why
    ] + [
        (one.step, str(one.failed), "failed: the last call failed, and it would be the same call", "")
        for one in plan.steps
        if one.failed
    ]


def left_rows(plan: Plan) -> list[tuple[str, ...]]:
    """Nodes that are not fresh and would not run, and why."""
    found = []
    for one in plan.steps:
        found += [(one.step, str(g.nodes), f"{g.kind}: {g.words}", g.example) for g in one.excluded]
        if one.running:
            found.append((one.step, str(one.running), "running: a living process works on it", ""))
    return found


def summary(plan: Plan) -> str:
    """The numbers of a plan in a few sentences."""
    return " ".join(_sentences(plan))


def _sentences(plan: Plan) -> Iterator[str]:
    if not plan.nodes and not plan.reused:
        yield "Nothing would run."
        return
    leaves = "1 of them is a leaf" if plan.leaves == 1 else f"{plan.leaves} of them are leaves"
    yield f"At most {_many(plan.nodes, 'node')} of {_many(len(plan.running_steps), 'step')} would run ({leaves})"
    yield f"and {number(plan.expected)} are expected to;" if plan.nodes else "and none is expected to;"
    yield f"{plan.reused} were made before and are taken again."
    if not plan.nodes:
        return
    runs = sum(one.cost.runs for one in plan.running_steps)
    if not runs:
        yield "None of these steps was ever made: there is nothing yet to tell core-hours and time from."
        return
    place = f"{plan.at_once} at once, {plan.place}"
    yield f"At most {number(plan.core_hours())} core-hours in {duration(plan.elapsed_s())} ({place}),"
    yield f"expected {number(plan.core_hours(True))} in {duration(plan.elapsed_s(True))};"
    yield f"medians of {_many(runs, 'past run')}, without waiting in queues."
    if plan.without_history:
        yield f"Not in these numbers, because never made: {', '.join(plan.without_history)}."
    if unknown := [one.step for one in plan.running_steps if one.changes.share is None]:
        yield f"Not yet made a second time, so taken to give other content: {', '.join(unknown)}."


def _many(n: int, what: str) -> str:
    return f"{n} {what}" + "s" * (n != 1)


def number(value: float) -> str:
    """Three digits are enough for an estimate; whole numbers stay whole."""
    if value == int(value):
        return str(int(value))
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else "<0.001"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    if 0 < seconds < 0.95:
        return "<1 s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
