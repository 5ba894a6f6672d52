"""④ Calls on this machine, through submitit's local executor: a few worker processes, each with a batch of calls.

submitit pickles, starts and logs; the watching is ours (one folder listing a poll), because its own waits a second
a job and cannot find a job again. A worker outlives the run that started it: what it publishes is not lost.
"""

import json
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

from ctcore.execute import StepCall, StepResult, run_calls
from ctcore.leases import hand_to, process_name
from ctcore.project import Project

POLL_S = 0.05
BATCH = 64


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

    def __init__(self, project: Project, workers: int = 0) -> None:
        self.project = project
        self.workers = workers or project.settings.run.workers or os.cpu_count() or 1

    def run(self, calls: Sequence[StepCall]) -> Iterator[list[StepResult]]:
        """Yield results as they come, a list a poll. Every call gets one, also where its process died."""
        waiting = deque(_batches(calls, self.workers))
        running: list[_Job] = []
        retries = _Retries(self.project, calls)
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    running.append(self._start(waiting.popleft()))
                ended = [result for job in running for result in self._results(job)]
                for job in [job for job in running if self._ended(job)]:
                    running.remove(job)
                    ended += self._results(job)
                    ended += self._leftover(job, waiting)
                results, again = retries.split(ended)
                waiting.extend([call] for call in again)
                if results:
                    yield results
                else:
                    time.sleep(POLL_S)
        finally:
            for job in running:
                with suppress(OSError):
                    os.kill(int(job.job.job_id), signal.SIGTERM)

    def _start(self, calls: list[StepCall]) -> _Job:
        from submitit import LocalExecutor

        executor = LocalExecutor(self.project.work / "jobs")
        executor.update_parameters(timeout_min=60 * 24 * 30, stderr_to_stdout=True)
        paths = [str(call.write(self.project.work)) for call in calls]
        job = executor.submit(_work, str(self.project.work), str(self.project.store.root), paths)
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

    def _leftover(self, job: _Job, waiting: deque[list[StepCall]]) -> list[StepResult]:
        """A process that ended early: the call it was at has failed, the ones behind it get another process."""
        if not job.calls:
            _clean(job.job)
            return []
        first, *behind = job.calls
        if behind:
            waiting.append(behind)
        said = f"the worker process ended without a result ({job.job.get_info()['jobState'].lower()})"
        return [StepResult(first.attempt, first.node, first.key, said, str(job.job.paths.stdout))]


def _work(work: str, store: str, calls: Sequence[str]) -> None:
    """In the worker: SIGTERM ends it, its staged folder is removed; submitit passes over that signal."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_calls(work, store, calls)


def _batches(calls: Sequence[StepCall], workers: int) -> list[list[StepCall]]:
    size = min(BATCH, -(-len(calls) // workers)) or 1
    return [list(calls[at : at + size]) for at in range(0, len(calls), size)]


def _clean(job: Any) -> None:
    """Remove what submitit left of a job that went well."""
    for path in Path(job.paths.folder).glob(f"{job.job_id}_*"):
        path.unlink(missing_ok=True)
