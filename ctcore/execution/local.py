"""Calls on this machine: a few worker processes, each with a batch of calls.

A server forks them (`execution.fork_server`); what has ended is seen by a listing of one folder a poll. A worker that
outlives its run ends the call that it is at: what it publishes is not lost. Ending a run has the same three stages as
on Slurm.
"""

import json
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex

from ctcore.execution.call import StepCall, StepResult, begun_place
from ctcore.execution.fork_server import KEPT, NoWorkerError, Worker, WorkerRequest
from ctcore.execution.slurm.cancel import Beside, RunEnd, Stop, WaitLoop, left_jobs_text
from ctcore.execution.slurm.tasks import has_text
from ctcore.project import Project
from ctcore.projects.leases import assign_leases
from ctcore.store.call_log import log_hint
from ctcore.util import progress
from ctcore.util.processes import end_tree, process_name
from ctcore.util.progress import Reader

POLL_S = 0.05
REST_S, CALL_S = 0.25, 0.005  # no call takes less, so that no worker waits for the next look
BATCH = 64
SLOW_S = 1.0
"""A worker that has given no result for so long is at a slow call: others take what waits behind it."""


@dataclass
class _Job:
    worker: Worker
    log: Path
    calls: list[StepCall]
    heard_at: float = field(default_factory=time.monotonic)


class _Retries:
    """Which failures are another try of their step's, and which are final."""

    def __init__(self, project: Project, calls: Sequence[StepCall]) -> None:
        self._calls = {call.key: call for call in calls}
        self._left = {call.key: project.steps[call.node[0]].resources.retries for call in calls}

    def split(self, results: Sequence[StepResult]) -> tuple[list[StepResult], list[StepCall]]:
        """The final results, and the calls to repeat."""
        final, again = [], []
        for result in results:
            if result.error is None or not self._left[result.key]:
                final.append(result)
                continue
            self._left[result.key] -= 1
            again.append(replace(self._calls[result.key], attempt=token_hex(8)))
        return final, again


class LocalRunner:
    """Runs calls with at most `workers` processes at a time."""

    def __init__(
        self,
        project: Project,
        workers: int = 0,
        stop: Stop | None = None,
        note: Reader = progress.note,
        beside: Beside | None = None,
    ) -> None:
        self.project = project
        self.workers = workers or project.settings.run.workers or os.cpu_count() or 1
        self.stop = stop or Stop()
        self.note = note
        self.beside = beside

    def run(self, calls: Sequence[StepCall]) -> Iterator[list[StepResult]]:
        """Yield results as they come, a list a poll. A call without one was withdrawn, because the run was ended; of a
        process that died, the call that it was at has failed."""
        return _Shift(self, calls).results()


class _Shift(WaitLoop[StepResult]):
    """One run of some calls: batches that wait, and processes at work."""

    every_s = POLL_S

    def __init__(self, runner: LocalRunner, calls: Sequence[StepCall]) -> None:
        super().__init__()
        self.project, self.workers, self.stop, self.note = runner.project, runner.workers, runner.stop, runner.note
        self.beside = runner.beside
        self.waiting = deque(_batches(calls, self.workers))
        self.running: list[_Job] = []
        self.retries = _Retries(self.project, calls)
        self.is_cancelled = False

    @property
    def is_over(self) -> bool:
        return not (self.waiting or self.running)

    @property
    def rest_s(self) -> float:
        if len(self.running) < self.workers:  # something else may take that place
            return 0.0
        return min(REST_S, CALL_S * min(len(job.calls) for job in self.running))

    @property
    def is_waiting(self) -> bool:
        return bool(self.waiting)

    @property
    def busy(self) -> int:
        return len(self.running)

    @property
    def most(self) -> int:
        return self.workers

    def look(self) -> list[StepResult]:
        ended: list[StepResult] = []
        while self.wish == "go" and (self.waiting or self._takes_back()) and self.room > 0:
            calls = self.waiting.popleft()
            try:
                self.running.append(self._start(calls))
            except NoWorkerError as error:
                ended += self._not_begun(calls, error)
        # Looked at again after each end below: a worker may write its last result between this listing and its end.
        ended += [result for job in self.running for result in self._results(job)]
        for job in [job for job in self.running if self._ended(job)]:
            self.running.remove(job)
            ended += self._results(job)
            ended += self._leftover(job)
        if self.wish != "go":
            return ended
        results, again = self.retries.split(ended)
        self.waiting.extend([call] for call in again)
        if any(result.error is not None for result in results):
            self.stop.failed()
        return results

    def _takes_back(self) -> bool:
        """Let half of what waits behind a slow call wait for any worker, and say whether there is such."""
        late = time.monotonic() - SLOW_S
        slow = [job for job in self.running if len(job.calls) > 1 and job.heard_at < late]
        if not slow or self.room <= 0:
            return False
        job = max(slow, key=lambda one: len(one.calls))
        # As if heard: at the next poll, the rest would be halved again.
        job.heard_at = time.monotonic()
        taken: list[StepCall] = []
        for call in reversed(job.calls[len(job.calls) // 2 :]):
            try:
                call.place(self.project.work).unlink()
            except FileNotFoundError:  # its worker has come to it
                break
            job.calls.remove(call)
            # Under a new name: the old one still stands in the list of the slow worker, which would come to it after
            # all.
            taken.append(replace(call, attempt=token_hex(8)))
        if taken:
            self.waiting.append(taken[::-1])
        return bool(taken)

    def apply_end(self, wish: RunEnd) -> None:
        """Start nothing more; let running calls finish (`slow`), end them (`fast`), or go without waiting (`leave`).
        A call that ignored the order to end is killed when nobody waits for it."""
        self.waiting.clear()
        for path in [call.place(self.project.work) for job in self.running for call in job.calls]:
            path.unlink(missing_ok=True)  # a worker takes only what is there when it comes to it
        if wish == "leave" and self.is_cancelled:
            for job in self.running:
                end_tree(job.worker.pid)
        elif wish == "leave" and self.running:
            self.note(left_jobs_text(len(self.running), "go on here"))
        elif wish == "fast":
            self.is_cancelled = True
            for job in self.running:
                with suppress(OSError):
                    os.kill(job.worker.pid, signal.SIGTERM)

    def _start(self, calls: list[StepCall]) -> _Job:
        paths = [str(call.write(self.project.work)) for call in calls]
        log = self.project.work / "jobs" / f"{token_hex(6)}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        request = WorkerRequest(str(self.project.work), str(self.project.store.root), paths, str(log), calls[0].source)
        worker = KEPT.start(request)
        # From now on the worker holds the keys: if this run is killed, no other run repeats what the worker still
        # makes.
        assign_leases(self.project, [call.key for call in calls], process_name(worker.pid))
        return _Job(worker, log, calls)

    def _not_begun(self, calls: Sequence[StepCall], error: NoWorkerError) -> list[StepResult]:
        for call in calls:
            call.place(self.project.work).unlink(missing_ok=True)
        return [StepResult(call.attempt, call.node, call.key, f"{error}; run it again") for call in calls]

    def _results(self, job: _Job) -> list[StepResult]:
        """The results that are there now; each is given once."""
        folder = self.project.work / "results"
        with suppress(FileNotFoundError):
            # One listing per poll for all calls, and no look at each file.
            there = {entry.name for entry in os.scandir(folder)}
            done = [call for call in job.calls if f"{call.attempt}.json" in there]
            if done:
                job.calls = [call for call in job.calls if call not in done]
                job.heard_at = time.monotonic()
            return [self._take(call) for call in done]
        return []

    def _take(self, call: StepCall) -> StepResult:
        path = self.project.work / "results" / f"{call.attempt}.json"
        result = StepResult(**json.loads(path.read_bytes()))
        path.unlink()
        begun_place(self.project.work / "calls" / path.name).unlink(missing_ok=True)
        return result

    def _ended(self, job: _Job) -> bool:
        return not KEPT.is_running(job.worker)

    def _leftover(self, job: _Job) -> list[StepResult]:
        """A process that ended early: the call it was at has failed, the ones behind it get another process."""
        if not job.calls or self.wish != "go":  # what it has not made was withdrawn
            job.log.unlink(missing_ok=True)
            return []
        # A worker goes through its calls in order and leaves a result for each: the first without one is where it
        # ended.
        first, *behind = job.calls
        if behind:
            self.waiting.append(behind)
        told = first.attempt, first.node, first.key
        how = job.worker.ended or "its worker was killed"
        log = next((one for one in (first.log(self.project.work), job.log) if has_text(one)), job.log)
        said = f"the call ended its process without a result ({how}); {log_hint(log)}"
        return [StepResult(*told, said, str(log) if has_text(log) else None)]


def _batches(calls: Sequence[StepCall], workers: int) -> list[list[StepCall]]:
    size = min(BATCH, -(-len(calls) // workers)) or 1
    return [list(calls[at : at + size]) for at in range(0, len(calls), size)]
