"""One job as a watcher sees it: its state, its record, since when; and what is said of it when it has failed."""

import os
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path

from ctcore.config.slurm_profiles import MIB_PER_GIB
from ctcore.execution.call import StepResult
from ctcore.execution.slurm.client import TaskStatus
from ctcore.execution.slurm.jobs import Job, JobEnd
from ctcore.execution.slurm.states import GONE, NOT_ASKED, WAITING, Facts, Judgement, Record, is_over
from ctcore.execution.slurm.submit import output_of
from ctcore.project import Project

TAIL_BYTES = 4000
TAIL_LINES = 20


@dataclass
class Task:
    """A job that is in Slurm's hands."""

    job: Job
    state: str = NOT_ASKED
    seen: TaskStatus | None = None
    exact: TaskStatus | None = None  # as accounting has it
    result: StepResult | None = None
    withdrawn: bool = False
    missed: float = 0.0  # when the queue was asked that did not know it any more
    since: float = field(default_factory=time.monotonic)
    _known: float = field(default_factory=time.monotonic)

    def update_from_queue(self, seen: TaskStatus) -> None:
        """What squeue says of it."""
        self._set_state(seen.state)
        self.seen = seen
        self.missed = 0.0

    def is_missed(self, asked: float) -> bool:
        """Whether the queue should have known it when it was asked: it had been submitted."""
        # The answer is older than the job: that it does not name it means nothing.
        if asked < self._known:
            return False
        self.missed = self.missed or asked
        return True

    def lost_from_queue(self, accounted: TaskStatus | None) -> None:
        """Both answered, and the queue does not know it: so it is over, whatever accounting believes."""
        # Accounting can be behind: slurmdbd gets ends of jobs from a queue in slurmctld, and may still say RUNNING.
        self.exact = accounted if accounted is not None and is_over(accounted.state) else None
        self.seen = self.exact or self.seen
        self._set_state(self.exact.state if self.exact else GONE)

    def read(self, result: StepResult) -> None:
        self.result = result
        self.since = time.monotonic()

    def look_for_artifact(self, project: Project) -> None:
        """It may have published and then died before it could write its record."""
        if self.result is None and project.store.find(*self.job.node, self.job.key) is not None:
            self.read(StepResult(self.job.call, self.job.node, self.job.key, log=self.job.log))

    @property
    def is_waiting(self) -> bool:
        """Whether Slurm has it in its queue, and may start it some time."""
        return self.state in WAITING

    def facts(self) -> Facts:
        record: Record | None = None
        if self.result is not None:
            record = "made" if self.result.error is None else "error"
        said = self.exact or self.seen
        return Facts(
            state=self.state,
            record=record,
            exit=said.exit if said else None,
            reason=said.reason if said else "",
            since_s=time.monotonic() - self.since,
            requeues=self.job.requeues,
            withdrawn=self.withdrawn,
        )

    def _set_state(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self.since = time.monotonic()

    def log(self, project: Project) -> str | None:
        """The log of the call, or else what the job said before its call began."""
        places = [self.job.log, output_of(project, self.job.batch, self.job.id)]
        return next((str(place) for place in places if place and has_text(Path(place))), self.job.log)


def job_end(task: Task, judgement: Judgement) -> JobEnd:
    """For the catalog. What the call measured of itself goes before what accounting sampled."""
    used = dict(task.result.used) if task.result else {}
    said = task.exact or task.seen
    known = {
        "node": said.node if said else None,
        "elapsed_s": said.elapsed_s if said else None,
        "cpu_s": said.cpu_s if said else None,
        "used_mb": said.used_mb if said else None,
    }
    known |= {name: value for name, value in used.items() if name in known}
    heard = is_over(task.state) and task.state != GONE
    # The record came before Slurm's word; what Slurm says later can only be COMPLETED.
    state = "COMPLETED" if judgement.verdict == "made" and not heard else task.state
    return JobEnd(task.job, state, judgement.why or _step_error(task) or judgement.verdict, **known)


def _step_error(task: Task) -> str | None:
    """What the step itself said was wrong: its first line."""
    said = task.result.error if task.result else None
    return textwrap.shorten(said.splitlines()[0], 200, placeholder=" …") if said else None


def failure(project: Project, task: Task, judgement: Judgement) -> str:
    """What a person needs: what happened, what was asked for, what it said last."""
    if task.result is not None and task.result.error is not None and not judgement.why:
        return task.result.error
    job, needs = task.job, task.job.needs
    node = task.seen.node if task.seen else None
    where = f" on {node}" if node else ""
    asked = f"{needs.cpus} CPU, {needs.memory_mb / MIB_PER_GIB:.3g} GiB, {needs.minutes} min"
    tries = f", try {job.tries}" if job.tries > 1 else ""
    used = task.exact.used_mb if task.exact else None
    memory = f"; it was seen to use {used / MIB_PER_GIB:.2g} GiB" if used else ""
    said = f"Slurm job {job.id} {task.state}{where}: {judgement.why} (asked for {asked}{tries}{memory})"
    log = task.log(project)
    lines = tail(Path(log)) if log else ""
    return f"{said}; it said last: {lines}" if lines else said


def has_text(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def tail(path: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, without reading all of it; empty where there is none."""
    try:
        with path.open("rb") as file:
            # A log may have gigabytes. The cut may fall inside a UTF-8 character, hence errors=replace.
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])
