"""Calls on their way into Slurm: grouped into arrays, written down before sbatch, sent until there is an answer."""

import time
from dataclasses import dataclass, field, replace
from secrets import token_hex

from ctcore.config.slurm_profiles import Needs, Profile
from ctcore.execution.call import StepCall
from ctcore.execution.slurm import client, jobs, submit
from ctcore.execution.slurm.client import SbatchReply
from ctcore.execution.slurm.jobs import Job, JobEnd
from ctcore.project import Project
from ctcore.util.progress import Reader

LATER_S = 5.0
LATEST_S = 60.0


@dataclass(frozen=True)
class PendingCall:
    """A call that has no job yet: a new one, or one that is tried again `instead_of` an earlier job, not before the
    moment `after` (of `time.monotonic`)."""

    call: StepCall
    needs: Needs
    tries: int = 1
    requeues: int = 0
    instead_of: JobEnd | None = None
    after: float = 0.0


@dataclass
class _Batch:
    """Written down, and not known to be in Slurm: to be submitted, or (an earlier run's) to be looked for."""

    name: str
    jobs: list[Job]
    wanted: list[PendingCall]
    ours: bool


@dataclass
class Outbox:
    """Calls that wait for submission, in order. `go` submits as many as it can."""

    project: Project
    profile: Profile
    note: Reader
    waiting: list[PendingCall] = field(default_factory=list)
    refused: list[tuple[PendingCall, str]] = field(default_factory=list)
    _unsent: list[_Batch] = field(default_factory=list)
    _next: float = 0.0
    _later_s: float = LATER_S
    _largest: int | None = None

    def __bool__(self) -> bool:
        return bool(self.waiting or self._unsent)

    def look_for(self, batch: str, listed: list[Job], wanted: list[PendingCall]) -> None:
        """Jobs of a run that died before it knew whether they were submitted."""
        self._unsent.append(_Batch(batch, listed, wanted, ours=False))

    def go(self, in_flight: int) -> list[Job]:
        """Submit as many as allowed now. Returns the jobs that Slurm took."""
        taken: list[Job] = []
        while time.monotonic() >= self._next:
            batch = self._unsent[0] if self._unsent else self._next_batch(in_flight + len(taken))
            if batch is None:
                break
            answer = submit.send(self.project, batch.name) if batch.ours else submit.find(self.project, batch.name)
            if answer.later:
                self._postpone(answer)
                break
            self._later_s = LATER_S
            self._unsent.remove(batch)
            taken += self._answered(batch, answer)
        return taken

    def drop(self) -> None:
        """Submit nothing more. Batches that were recorded but not sent are closed."""
        before = [wanted.instead_of for wanted in self.waiting if wanted.instead_of is not None]
        self.waiting = []
        # An earlier run's batch stays open: Slurm may have it, and the next run looks for it.
        ours = [batch for batch in self._unsent if batch.ours]
        self._unsent = []
        for batch in ours:
            submit.withdraw(self.project, batch.name)
        closed = [JobEnd(job, "NOT_SUBMITTED", "withdrawn before it was submitted") for b in ours for job in b.jobs]
        jobs.settle(self.project, before + closed)

    def _postpone(self, answer: SbatchReply) -> None:
        self.note(f"Slurm does not take jobs now ({answer.error}); asking again in {self._later_s:.0f} s")
        self._next = time.monotonic() + self._later_s
        self._later_s = min(2 * self._later_s, LATEST_S)

    def _answered(self, batch: _Batch, answer: SbatchReply) -> list[Job]:
        if answer.job is not None:
            jobs.mark_submitted(self.project, batch.name, answer.job)
            word = "submitted" if batch.ours else "found"
            jobs_said = "1 job" if len(batch.jobs) == 1 else f"{len(batch.jobs)} jobs"
            self.note(f"{word} {jobs_said} as Slurm array {answer.job} ({batch.name})")
            for job in batch.jobs:
                job.array = answer.job
            return batch.jobs
        closed = [JobEnd(job, "NOT_SUBMITTED", answer.error or "it was never submitted") for job in batch.jobs]
        jobs.settle(self.project, closed)
        if not batch.ours:
            self.waiting += batch.wanted
        else:
            said = (
                f"Slurm refuses the jobs of profile {self.profile.name}: {answer.error}; "
                f"see [slurm.{self.profile.name}] in ct.toml, and the Resources of {batch.jobs[0].node[0]}"
            )
            self.note(said)
            self.refused += [(wanted, answer.error if wanted.instead_of else said) for wanted in batch.wanted]
        return []

    def _next_batch(self, in_flight: int) -> _Batch | None:
        """The next array begins when half of the jobs in flight have ended; together they never are more than that."""
        # Without the half, each job that ends would be followed by an array of one job.
        room = self.profile.in_flight - in_flight
        ready = [wanted for wanted in self.waiting if wanted.after <= time.monotonic()]
        if not ready or room <= 0 or (in_flight and 2 * room < self.profile.in_flight):
            return None
        needs = ready[0].needs
        # All tasks of an array have the same request for resources (sbatch(1), --array).
        chosen = [wanted for wanted in ready if wanted.needs == needs][: self._array_size()]
        batch = self._written_down(chosen, needs, room)
        ids = {id(wanted) for wanted in chosen}
        self.waiting = [wanted for wanted in self.waiting if id(wanted) not in ids]
        self._unsent.append(batch)
        return batch

    def _written_down(self, chosen: list[PendingCall], needs: Needs, at_once: int) -> _Batch:
        name = submit.new_name(self.project)
        # Another name for each try: a record of an earlier try that comes late is not taken for this one's.
        calls = [replace(wanted.call, attempt=token_hex(8)) for wanted in chosen]
        submit.prepare(self.project, self.profile, name, calls, needs, at_once)
        listed = [
            self._job(name, at, wanted, call) for at, (wanted, call) in enumerate(zip(chosen, calls, strict=True))
        ]
        before = [wanted.instead_of for wanted in chosen if wanted.instead_of is not None]
        # After the files: killed in between, a folder is left that nothing names, and that is removed when it is old. A
        # batch on record always has what its jobs read.
        jobs.record_batch(self.project, listed, calls[0].run_id, before)
        return _Batch(name, listed, chosen, ours=True)

    def _job(self, batch: str, index: int, wanted: PendingCall, call: StepCall) -> Job:
        return Job(
            batch=batch,
            index=index,
            key=call.key,
            node=(call.node[0], call.node[1]),
            call=call.attempt,
            needs=wanted.needs,
            profile=self.profile.name,
            tries=wanted.tries,
            requeues=wanted.requeues,
            log=str(call.log(self.project.work)),
        )

    def _array_size(self) -> int:
        # Indices end at MaxArraySize - 1 (slurm.conf(5)). Ours begin with 0, so an array may have that many tasks.
        self._largest = self._largest or client.largest_array()
        return min(self.profile.array_size, self._largest or self.profile.array_size)
