"""Why ready nodes are held back: their step's policy, the wait after a failure, the daily budget."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import attempt, request
from ctcore.model.node import Node, name_of
from ctcore.model.reasons import Verdict
from ctcore.planning.past_costs import HOUR_S, Cost, Spending, costs, spending_since
from ctcore.planning.plan_text import number
from ctcore.project import Project
from ctcore.util.clock import utc

GROWTH = 4
LONGEST_S = 24 * HOUR_S
DAY_S = 24 * HOUR_S
PROBE = 10  # nodes of a step that was never made, while a budget of core-hours has nothing to reckon with


@dataclass(frozen=True)
class HeldNodes:
    """Nodes that are not requested, and why. `until` is the next time to look, if only time changes it."""

    nodes: tuple[Node, ...]
    words: str
    until: str | None = None


def held_words(held: Iterable[HeldNodes]) -> str:
    return "; ".join(one.words for one in held)


def earliest(held: Iterable[HeldNodes]) -> str | None:
    """When the first of these should be looked at again."""
    return min((one.until for one in held if one.until), default=None)


def node_count_text(nodes: Sequence[Any]) -> str:
    return f"{len(nodes)} node" + "s" * (len(nodes) != 1)


def split_by_policy(project: Project, ready: Iterable[Verdict]) -> tuple[list[Verdict], list[HeldNodes]]:
    """Split steps by policy: made automatically, waiting for a person, or left alone; or made elsewhere."""
    free: list[Verdict] = []
    kept: dict[str, list[Node]] = {}
    for verdict in ready:
        if _is_automatic(project, verdict.asset):
            free.append(verdict)
        else:
            kept.setdefault(verdict.asset, []).append(verdict.node)
    return free, [HeldNodes(tuple(nodes), _policy_words(project, step, nodes)) for step, nodes in kept.items()]


def _is_automatic(project: Project, step: str) -> bool:
    return project.settings.automation.policy(step) == "automatic" and not project.steps[step].made_elsewhere


def _policy_words(project: Project, step: str, nodes: Sequence[Node]) -> str:
    if project.steps[step].made_elsewhere:
        return f"{node_count_text(nodes)} of {step} {project.steps[step].way_to(nodes[0][1])}"
    if project.settings.automation.policy(step) == "never":
        return f'{node_count_text(nodes)} of {step} left alone ([policy] "never")'
    return f'{node_count_text(nodes)} of {step} waiting for a person ([policy] "ask"): `ct run {step}` makes them'


@dataclass(frozen=True)
class Failures:
    """How many times a node failed for the same reasons, and when it last did.

    If no call failed, the node's runs were lost: somebody ended them, or their machine did. The first lost run costs no
    wait.
    """

    tries: int
    last: str
    lost: bool = False


def nodes_backing_off(
    project: Project, ready: Iterable[Verdict], failures: Mapping[Node, Failures]
) -> Iterator[HeldNodes]:
    """Nodes that were tried in vain and whose next try is not due, all in one, with the time of the first."""
    now = utc(time.time())
    due = {
        verdict.node: next_try(failures[verdict.node], project.settings.run.retry_after_s)
        for verdict in ready
        if verdict.node in failures
    }
    later = {node: when for node, when in due.items() if when > now}
    if later:
        first = min(later, key=lambda node: later[node])
        tries = failures[first].tries
        again = f"{name_of(first)} (tried {tries} time{'s' * (tries != 1)}) at {later[first]}"
        yield HeldNodes(
            tuple(later), f"{node_count_text(list(later))} tried in vain; the next try is {again}", later[first]
        )


def next_try(failures: Failures, first_s: int) -> str:
    """The wait grows fourfold with each try, up to a day."""
    import calendar

    waits = failures.tries - failures.lost
    if not waits:
        return failures.last
    # timegm, not mktime: the text is of UTC (docs.python.org, calendar.timegm).
    ended = calendar.timegm(time.strptime(failures.last[:19], "%Y-%m-%dT%H:%M:%S"))
    return utc(ended + min(LONGEST_S, first_s * GROWTH ** min(waits - 1, 20)))


def failures_of(project: Project, ready: Iterable[Verdict], keys: Mapping[Node, str]) -> dict[Node, Failures]:
    """Count failures from the ledger: failed calls with the same key, or requests without a result.

    `keys` identify today's verdicts. Another reason or another call starts the count anew.
    """
    nodes = {verdict.node: verdict for verdict in ready}
    with project.catalog.read() as connection:
        mine = in_keys(request.c.partition, {node[1] for node in nodes})
        rows = {(row.asset, row.partition): row for row in connection.execute(select(request).where(mine))}
        asked = {node: row for node, row in rows.items() if keys.get(node) == row.key}
        failed = {node for node, verdict in nodes.items() if verdict.state == "failed"}
        calls = _failed_calls(connection, failed | set(asked))
    found = {node: calls[node] for node in failed if node in calls}
    for node, row in asked.items():
        call = calls.get(node)
        if node in found:
            found[node] = Failures(max(row.tries, found[node].tries), max(row.asked_at, found[node].last))
        # No call has failed since the request, and nothing was made: its run was lost on the way.
        elif call is None or call.last < row.asked_at:
            found[node] = Failures(row.tries, row.asked_at, lost=True)
    return found


def _failed_calls(connection: Connection, nodes: Collection[Node]) -> dict[Node, Failures]:
    """How often the last call of each node failed that has failed."""
    if not nodes:
        return {}
    tries = (
        select(attempt.c.asset, attempt.c.partition, func.count(), func.max(attempt.c.ended_at))
        .where(in_keys(attempt.c.partition, {node[1] for node in nodes}))
        .group_by(attempt.c.asset, attempt.c.partition, attempt.c.key)
        # Of several calls of a node, the one that failed last comes last, and is what the dictionary keeps.
        .order_by(func.max(attempt.c.id))
    )
    return {(asset, partition): Failures(n, ended) for asset, partition, n, ended in connection.execute(tries)}


class Budget:
    """What the sensor may still request today. Spent hours come from the ledger, running ones are estimated."""

    def __init__(self, project: Project, under_way: Iterable[Node]) -> None:
        self.bound = project.settings.automation
        self.is_set = self.bound.partitions is not None or self.bound.core_hours is not None
        self.costs: dict[str, Cost] = {}
        self.spent = Spending(0, 0.0)
        if self.is_set:
            self.costs = costs(project, project.steps.order)
            # A day is one of UTC, as all times of the ledger are.
            self.spent = spending_since(project, utc(time.time() // DAY_S * DAY_S))
        self.nodes, self.hours = self.spent.nodes, self.spent.core_hours
        self.unknown: dict[str, int] = {}
        for asset, _ in under_way:
            self._take(asset)

    def within(self, verdicts: Sequence[Verdict]) -> tuple[list[Verdict], list[Verdict]]:
        """The first ones that are within the budget, which is then theirs; and the others."""
        taken = 0
        for verdict in verdicts:
            if not self._allows(verdict.asset):
                break
            self._take(verdict.asset)
            taken += 1
        return list(verdicts[:taken]), list(verdicts[taken:])

    def takes_all(self, verdicts: Sequence[Verdict]) -> bool:
        """Whether all of these are within the budget, which is then theirs; nothing is taken else."""
        before = self.nodes, self.hours, dict(self.unknown)
        if not self.within(verdicts)[1]:
            return True
        self.nodes, self.hours, self.unknown = before
        return False

    def held(self, beyond: Sequence[Verdict]) -> Iterator[HeldNodes]:
        if not beyond:
            return
        nodes = tuple(verdict.node for verdict in beyond)
        tomorrow = utc((time.time() // DAY_S + 1) * DAY_S)
        if self._full():
            yield HeldNodes(
                nodes, f"{node_count_text(nodes)} beyond today's budget: {self.words}; goes on at {tomorrow}", tomorrow
            )
        else:
            steps = ", ".join(sorted({asset for asset, _ in nodes}))
            yield HeldNodes(
                nodes,
                f"{node_count_text(nodes)} of {steps} wait until {PROBE} have shown what one costs ([run] budget)",
            )

    @property
    def words(self) -> str:
        """How much of the budget is spent."""
        parts = []
        if self.bound.partitions is not None:
            parts.append(f"{self.spent.nodes} of {self.bound.partitions} partitions")
        if self.bound.core_hours is not None:
            parts.append(f"{number(self.spent.core_hours)} of {number(self.bound.core_hours)} core-hours")
        return " and ".join(parts) + " are spent" if parts else ""

    def _full(self) -> bool:
        nodes = self.bound.partitions is not None and self.nodes >= self.bound.partitions
        return nodes or (self.bound.core_hours is not None and self.hours >= self.bound.core_hours)

    def _allows(self, asset: str) -> bool:
        if not self.is_set:
            return True
        first = self.bound.core_hours is None or asset not in self.costs or self.costs[asset].core_seconds is not None
        return not self._full() and (first or self.unknown.get(asset, 0) < PROBE)

    def _take(self, asset: str) -> None:
        self.nodes += 1
        each = self.costs[asset].core_seconds if asset in self.costs else 0.0
        if each is None:
            self.unknown[asset] = self.unknown.get(asset, 0) + 1
        self.hours += (each or 0.0) / HOUR_S
