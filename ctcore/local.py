"""④ Calls on this machine, through submitit's local executor: a few worker processes, each with a batch of calls.

submitit pickles, starts and logs; the watching is ours (one folder listing a poll), because its own waits a second
a job and cannot find a job again. A worker that outlives its run ends the call that it is at: what it publishes is
not lost. Ending a run has the same three stages as on Slurm.
"""

import json
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

from ctcore import progress
from ctcore.alone import sweep_temporary
from ctcore.beats import beat
from ctcore.execute import StepCall, StepResult, run_calls
from ctcore.leases import hand_to, process_name
from ctcore.progress import Reader
from ctcore.project import Project
from ctcore.slurm.stop import Rounds, Stop, Wish, left_alone

POLL_S = 0.05
BATCH = 64
_GPUS = "CUDA_VISIBLE_DEVICES"


@dataclass
class _Job:
    job: Any
    calls: list[StepCall]


class _Retries:
    """Which failures are another try of their step's, and which are final."""

    def __init__(self, project: Project, calls: Sequence[StepCall]) -> None:
        self._calls = {call.key: call for call in calls}
        self._left = {call.key: project.steps[call.node[0]].resources.retries for call in calls}

    def split(self, results: Sequence[StepResult]) -> tuple[list[StepResult], list[StepCall]]:
        """What is final, and the calls that are to be made again."""
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
        self, project: Project, workers: int = 0, stop: Stop | None = None, note: Reader = progress.note
    ) -> None:
        self.project = project
        self.workers = workers or project.settings.run.workers or os.cpu_count() or 1
        self.stop = stop or Stop()
        self.note = note

    def run(self, calls: Sequence[StepCall]) -> Iterator[list[StepResult]]:
        """Yield results as they come, a list a poll. A call without one was withdrawn, because the run was ended; of a
        process that died, the call that it was at has failed."""
        return _Shift(self, calls).results()


class _Shift(Rounds):
    """One run of some calls: batches that wait, and processes at work."""

    every_s = POLL_S

    def __init__(self, runner: LocalRunner, calls: Sequence[StepCall]) -> None:
        super().__init__()
        self.project, self.workers, self.stop, self.note = runner.project, runner.workers, runner.stop, runner.note
        self.waiting = deque(_batches(calls, self.workers))
        self.running: list[_Job] = []
        self.retries = _Retries(self.project, calls)

    @property
    def is_over(self) -> bool:
        return not (self.waiting or self.running)

    def look(self) -> list[StepResult]:
        while self.wish == "go" and self.waiting and len(self.running) < self.workers:
            self.running.append(self._start(self.waiting.popleft()))
        ended = [result for job in self.running for result in self._results(job)]
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

    def obey(self, wish: Wish) -> None:
        """Start nothing more, and let what runs finish (`slow`), end it (`fast`), or go without waiting (`leave`)."""
        self.waiting.clear()
        for path in [call.place(self.project.work) for job in self.running for call in job.calls]:
            path.unlink(missing_ok=True)  # a worker takes only what is there when it comes to it
        if wish == "leave":
            self.note(left_alone(len(self.running), "go on here"))
        elif wish == "fast":
            for job in self.running:
                with suppress(OSError):
                    os.kill(int(job.job.job_id), signal.SIGTERM)

    def _start(self, calls: list[StepCall]) -> _Job:
        from submitit import LocalExecutor

        executor = LocalExecutor(self.project.work / "jobs")
        executor.update_parameters(timeout_min=60 * 24 * 30, stderr_to_stdout=True)
        paths = [str(call.write(self.project.work)) for call in calls]
        visible = os.environ.get(_GPUS)
        job = executor.submit(_work, str(self.project.work), str(self.project.store.root), paths, visible)
        hand_to(self.project, [call.key for call in calls], process_name(int(job.job_id)))
        return _Job(job, calls)

    def _results(self, job: _Job) -> list[StepResult]:
        """The results that are there now; each is given once."""
        folder = self.project.work / "results"
        with suppress(FileNotFoundError):
            there = {entry.name for entry in os.scandir(folder)}
            done = [call for call in job.calls if f"{call.attempt}.json" in there]
            job.calls = [call for call in job.calls if call not in done] if done else job.calls
            return [self._take(call) for call in done]
        return []

    def _take(self, call: StepCall) -> StepResult:
        path = self.project.work / "results" / f"{call.attempt}.json"
        result = StepResult(**json.loads(path.read_bytes()))
        path.unlink()
        (self.project.work / "calls" / path.name).unlink(missing_ok=True)
        return result

    def _ended(self, job: _Job) -> bool:
        return job.job.get_info()["jobState"] != "RUNNING"

    def _leftover(self, job: _Job) -> list[StepResult]:
        """A process that ended early: the call it was at has failed, the ones behind it get another process."""
        if not job.calls or self.wish != "go":  # what it has not made was withdrawn
            _clean(job.job)
            return []
        first, *behind = job.calls
        if behind:
            self.waiting.append(behind)
        said = f"the worker process ended without a result ({job.job.get_info()['jobState'].lower()})"
        return [StepResult(first.attempt, first.node, first.key, said, str(job.job.paths.stdout))]


def _work(work: str, store: str, calls: Sequence[str], visible: str | None = None) -> None:
    """In the worker: SIGTERM ends it, its staged folder is removed; submitit passes over that signal, and hides the
    GPUs that were `visible`."""
    os.environ.pop(_GPUS, None)
    if visible is not None:
        os.environ[_GPUS] = visible
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sweep_temporary()
    beat(Path(work), process_name())
    run_calls(work, store, (path for path in calls if os.path.exists(path)))  # others were withdrawn meanwhile


def _batches(calls: Sequence[StepCall], workers: int) -> list[list[StepCall]]:
    size = min(BATCH, -(-len(calls) // workers)) or 1
    return [list(calls[at : at + size]) for at in range(0, len(calls), size)]


def _clean(job: Any) -> None:
    """Remove what submitit left of a job that went well."""
    for path in Path(job.paths.folder).glob(f"{job.job_id}_*"):
        path.unlink(missing_ok=True)
