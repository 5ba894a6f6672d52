"""What is ready is made while the last calls of a step go on: nobody waits for somebody else's slow sample.

`ct run` makes step after step. Where nothing of its step waits to be started and there is room for more, nodes of other
steps are begun, in runs that the waiting one drives. They are recorded as they end. Dagster is told of them when their
own step's turn comes.
"""

import time
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from ctcore.errors import CtError
from ctcore.execution.materialize import Outcome, StepRun
from ctcore.execution.runners import chosen_profile, runner_of
from ctcore.execution.slurm.cancel import FollowingStop, RunEnd, Stop, WaitLoop
from ctcore.model.levels import count_text
from ctcore.model.node import Node
from ctcore.model.reasons import Verdict
from ctcore.planning.work_list import WorkList
from ctcore.project import Project
from ctcore.util import progress

EVERY_S = 1.0
POLLS = 10  # of Slurm's queue: an array for what has become ready meanwhile, and no job each
MOST = 500  # nodes of a step that are begun together
SHARE = 20  # to look for ready nodes takes this part of the time at most
# Told by identity: a look that found nothing gives an empty list as well.
OVER: list[Outcome] = []


@dataclass
class _Begun:
    step: str
    left: set[str]
    run: Generator[list[Outcome]]


class AheadRuns:
    """The nodes that one `ct run` makes before their step's turn."""

    def __init__(self, project: Project, work: WorkList) -> None:
        self.project = project
        self.work = work
        profile = chosen_profile(project)
        self.every_s = EVERY_S if profile is None else POLLS * profile.poll
        self.lead_stop = Stop()
        self.run_id: str | None = None
        self.most = 1  # processes or jobs, as the run says that is followed
        self._passed: set[str] = set()  # steps whose turn is over
        self._lead: WaitLoop[Any] | None = None
        self._loops: WeakSet[WaitLoop[Any]] = WeakSet()
        self._begun: list[_Begun] = []
        self._ended: dict[Node, Outcome] = {}
        self._tried: set[Node] = set()
        self._next = time.monotonic() + self.every_s

    def follow(self, stop: Stop, run_id: str, step: str, keys: Sequence[str]) -> None:
        """From now on this run's loop drives the others: its nodes are its own, and its end is theirs."""
        self.lead_stop, self.run_id = stop, run_id
        self._tried |= {(step, key) for key in keys}
        self._passed = set(self.project.steps.order[: self.project.steps.order.index(step)])

    def nodes(self, step: str) -> set[str]:
        return {partition for asset, partition in self.work.ahead if asset == step}

    def outcomes(self, step: str, partitions: Collection[str]) -> Iterator[list[Outcome]]:
        taken = {(step, partition) for partition in partitions}
        yield from _Rest(self, taken).results()
        for node in taken:
            self.work.ahead.pop(node, None)

    def take(self, nodes: Collection[Node]) -> list[Outcome]:
        """How those of these ended that have."""
        return [self._ended.pop(node) for node in list(nodes) if node in self._ended]

    @property
    def is_over(self) -> bool:
        return not self._begun

    @property
    def busy(self) -> int:
        return sum(loop.busy for loop in self._loops)

    def others(self, loop: WaitLoop[Any]) -> int | None:
        self._loops.add(loop)
        if loop is not self._lead and self._lead is not None and self._lead.is_waiting:
            return None
        return self.busy - loop.busy

    def look(self, lead: WaitLoop[Any]) -> None:
        self._lead, self.most = lead, lead.most
        self._loops.add(lead)
        for one in list(self._begun):
            self._go_on(one)
        is_asked = lead.wish == "go" and lead.room > 0 and not any(loop.is_waiting for loop in self._loops)
        if is_asked and time.monotonic() >= self._next:
            began = time.monotonic()
            self._begin()
            ended = time.monotonic()
            self._next = ended + max(self.every_s, SHARE * (ended - began))

    def close(self) -> None:
        """Go without waiting: what is at work is kept, and the next run goes on from there."""
        for one in self._begun:
            one.run.close()
        self._begun = []

    def _go_on(self, one: _Begun) -> None:
        try:
            some = next(one.run, OVER)
        except CtError:  # its step's own turn meets the same, and says it
            some = OVER
        if some is OVER:
            self._begun.remove(one)
            for partition in one.left:
                self.work.ahead.pop((one.step, partition), None)
            return
        for outcome in some:
            one.left.discard(outcome.node[1])
            self._ended[outcome.node] = outcome
            progress.tell(outcome)

    def _begin(self) -> None:
        ready: dict[str, list[Verdict]] = {}
        for verdict in self.work.ready():
            if verdict.node not in self._tried and verdict.asset not in self._passed:
                ready.setdefault(verdict.asset, []).append(verdict)
        for step, verdicts in ready.items():
            self._start(step, verdicts[:MOST])

    def _start(self, step: str, verdicts: Sequence[Verdict]) -> None:
        keys = [verdict.partition for verdict in verdicts]
        self._tried |= {verdict.node for verdict in verdicts}
        self.work.ahead |= {verdict.node: verdict for verdict in verdicts}
        stop = FollowingStop(lambda: self.lead_stop)
        run = StepRun(
            self.project,
            self.project.steps[step],
            keys,
            run_id=self.run_id,
            stale_only=True,
            runner=runner_of(self.project, stop=stop, beside=self),
            waits=False,
        )
        progress.tell(progress.StepAhead(step, len(keys)))
        progress.note(f"meanwhile, {count_text(len(keys), 'node')} of {step}")
        self._begun.append(_Begun(step, set(keys), run.settled()))


class _Rest(WaitLoop[Outcome]):
    """The end of nodes that were begun ahead, in the run that reports them."""

    every_s = 0.1

    def __init__(self, ahead: AheadRuns, nodes: Collection[Node]) -> None:
        super().__init__()
        self.ahead, self.beside, self.stop = ahead, ahead, ahead.lead_stop
        self.note = progress.note
        self.nodes = set(nodes)

    @property
    def is_over(self) -> bool:
        return not self.nodes

    @property
    def is_waiting(self) -> bool:
        return False

    @property
    def busy(self) -> int:
        return 0

    @property
    def most(self) -> int:
        return self.ahead.most

    def look(self) -> list[Outcome]:
        found = self.ahead.take(self.nodes)
        self.nodes -= {one.node for one in found}
        self.nodes &= self.ahead.work.ahead.keys()
        return found

    def apply_end(self, wish: RunEnd) -> None:
        """What was begun ends by the same wish."""
