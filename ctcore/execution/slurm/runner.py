"""Calls as job arrays: submitted once, watched by one listing and one squeue for all of them, judged, tried again."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from ctcore.config.slurm_profiles import Needs, Overrides, Profile, grown_needs, needs_of
from ctcore.execution.call import StepCall, StepResult
from ctcore.execution.slurm import client, jobs
from ctcore.execution.slurm.cancel import Beside, RunEnd, Stop, WaitLoop, left_jobs_text
from ctcore.execution.slurm.client import Named, TaskStatus
from ctcore.execution.slurm.held_jobs import cancel_leftovers
from ctcore.execution.slurm.jobs import Job, JobEnd
from ctcore.execution.slurm.outbox import Outbox, PendingCall
from ctcore.execution.slurm.polling import Polling
from ctcore.execution.slurm.states import NOT_ASKED, Judgement, is_over, judge
from ctcore.execution.slurm.status_cache import Answers
from ctcore.execution.slurm.tasks import Task, failure, job_end
from ctcore.project import Project
from ctcore.util import progress
from ctcore.util.progress import Reader

LISTING_S = 0.5
NOTE_S = 30.0
SAID_AT = (2, 10, 100, 1000)
# sacct hangs for as long as slurmdbd is away. squeue has said by then that the job is over; only the cause is missing.
SILENCE_S = 180.0


class SlurmRunner:
    """Runs calls of one step on the cluster of a profile. Jobs that a run left behind when it died are gone on with."""

    def __init__(
        self,
        project: Project,
        profile: Profile,
        overrides: Overrides | None = None,
        stop: Stop | None = None,
        note: Reader = progress.note,
        beside: Beside | None = None,
    ) -> None:
        self.project = project
        self.profile = profile
        self.overrides = overrides
        self.stop = stop or Stop()
        self.note = note
        self.beside = beside

    def run(self, calls: Sequence[StepCall]) -> Iterator[list[StepResult]]:
        """Yield results as jobs end. A call without one was withdrawn, because the run was cancelled."""
        return _Flight(self, calls).results()

    def needs(self, call: StepCall) -> Needs:
        """The resources that a job of this call requests."""
        read = sum(size for _, size, *_ in call.watch)
        return needs_of(self.profile, self.project.steps[call.node[0]].resources, read, self.overrides)


def _staged(task: Task) -> tuple[str, str, str]:
    return (*task.job.node, task.job.key)


class _Flight(WaitLoop[StepResult]):
    """One run of some calls: those that wait for submission, and those in Slurm."""

    every_s = LISTING_S

    def __init__(self, runner: SlurmRunner, calls: Sequence[StepCall]) -> None:
        super().__init__()
        self.project, self.profile, self.stop, self.note = runner.project, runner.profile, runner.stop, runner.note
        self.beside = runner.beside
        self.calls = {call.key: call for call in calls}
        self.tasks: dict[str, Task] = {}
        self.left = set[str]()  # batches of an earlier run
        self.outbox = Outbox(self.project, self.profile, self.note)
        self.polling = Polling(self.profile.poll)
        self.answers = Answers(self.project)
        self.fail = self.profile.fail
        self.unheard = False
        self._silent_since, self._silence_said = 0.0, False
        self._noted = time.monotonic()
        # The lease of a key that Slurm works on is free for everybody (`leases.is_alive`): only these rows keep a
        # second job from being submitted for it.
        held = self._attach(jobs.open_jobs(self.project, self.calls))
        fresh = [call for call in calls if call.key not in held]
        self.outbox.waiting += [PendingCall(call, runner.needs(call)) for call in fresh]

    @property
    def is_over(self) -> bool:
        return not (self.outbox or self.tasks or self.outbox.refused)

    @property
    def is_waiting(self) -> bool:
        return bool(self.outbox)

    @property
    def busy(self) -> int:
        return len(self.tasks)

    @property
    def most(self) -> int:
        return self.profile.in_flight

    def _attach(self, left: Sequence[Job]) -> set[str]:
        """Jobs of an earlier run: watch those that Slurm has, and search for those that it may not have."""
        unknown: dict[str, list[Job]] = {}
        self.left = {job.batch for job in left}
        for job in left:
            if job.array is None:
                unknown.setdefault(job.batch, []).append(job)
            else:
                self.tasks[job.call] = Task(job)
        for batch, listed in unknown.items():
            wanted = [PendingCall(self.calls[job.key], job.needs, job.tries, job.requeues) for job in listed]
            self.outbox.look_for(batch, listed, wanted)
        if self.tasks:
            self.note(f"{len(self.tasks)} jobs of an earlier run are in Slurm: waiting for them")
        return {job.key for job in left}

    def look(self) -> list[StepResult]:
        if self.wish == "go":
            for job in self.outbox.go(self.most - self.room):
                self.tasks[job.call] = Task(job)
                self.polling.expect_change()
        self._read_records()
        if self.tasks and self.polling.is_due():
            self._ask()
        found = self._judge_all() + self._refused()
        if any(result.error is not None for result in found):
            self.stop.failed()
        return found

    def _read_records(self) -> None:
        """One listing for all; a record is read once."""
        with suppress(FileNotFoundError), os.scandir(self.project.work / "results") as entries:
            for entry in entries:
                task = self.tasks.get(entry.name.removesuffix(".json"))
                if task is not None and task.result is None:
                    # A record is renamed into its place (`write_json`), so what is listed under its name is whole.
                    with open(entry.path, "rb") as file:
                        task.read(StepResult(**json.load(file)))

    def _ask(self) -> None:
        """One query of the queue for all jobs, and one of accounting for those that the queue does not know."""
        queued = self.answers.queue(self.polling.wait_s)
        if queued is None:  # another run asks just now
            return
        if queued.rows is None:
            self.polling.mark_unanswered(queued.answered_at)
            if self.polling.failures in SAID_AT:
                self.note(f"squeue has not answered {self.polling.failures} times; waiting for it")
            return
        mine = {task.job.named for task in self.tasks.values()}
        # Without this run's own tasks, which are judged below: mostly nothing is left then, and the catalog is not
        # read.
        cancel_leftovers(self.project, {named: seen for named, seen in queued.rows.items() if named not in mine})
        before = [task.state for task in self.tasks.values()]
        unknown: list[Task] = []
        for task in self.tasks.values():
            if (seen := queued.rows.get(task.job.named)) is not None:
                task.update_from_queue(seen)
            elif task.is_missed(queued.asked_at):
                unknown.append(task)
        for task, accounted in self._accounted([(task, task.missed) for task in unknown]):
            if accounted is not None:
                task.lost_from_queue(accounted.get(task.job.named))
        if self.unheard:
            self._cancel()
        self.polling.mark_answered(queued.answered_at, changed=before != [task.state for task in self.tasks.values()])
        self._note()

    def _accounted(self, wanted: Sequence[tuple[Task, float]]) -> list[tuple[Task, dict[Named, TaskStatus] | None]]:
        """Tasks with accounting's rows from after their moment. It is not queried at every moment, so others come
        later."""
        arrays = {str(task.job.array) for task, _ in wanted}
        answer = self.answers.account(arrays, self.profile.poll) if arrays else None
        if answer is None:
            return []
        if answer.rows is not None:
            self._silent_since = 0.0
        rows = answer.rows if answer.rows is not None else self._without_accounting(answer.asked_at)
        return [(task, rows) for task, after in wanted if answer.is_of(str(task.job.array), after)]

    def _without_accounting(self, asked: float) -> dict[Named, TaskStatus] | None:
        """The outcome without an answer from accounting: after a while, it counts as not knowing the job."""
        self._silent_since = self._silent_since or asked
        if time.monotonic() - self._silent_since < SILENCE_S:
            return None
        if not self._silence_said:
            self._silence_said = True
            self.note(f"sacct has given no answer for {SILENCE_S:.0f} s: jobs are judged by their results alone")
        return {}

    def _note(self) -> None:
        if time.monotonic() - self._noted > NOTE_S:
            self._noted = time.monotonic()
            states = Counter(task.state.lower() or "unknown" for task in self.tasks.values())
            said = ", ".join(f"{count} {state}" for state, count in states.most_common())
            self.note(f"in Slurm: {said}; to be submitted: {len(self.outbox.waiting)}")

    def _judge_all(self) -> list[StepResult]:
        over = self._over(self.tasks.values())
        if not over:
            return []
        lost = [task for task, judgement in over if judgement.verdict != "made"]
        if lost:  # accounting knows the exit code, and what was used
            told = self._account(lost)
            for task in told:
                task.look_for_artifact(self.project)
            over = self._over([task for task, judgement in over if judgement.verdict == "made"] + told)
        results: list[StepResult] = []
        settled: list[JobEnd] = []
        for task, judgement in over:
            del self.tasks[task.job.call]
            if again := self._again(task, judgement):
                # Its row is closed in the transaction that writes down the next try (`jobs.record_batch`).
                self.outbox.waiting.append(again)
                continue
            settled.append(job_end(task, judgement))
            if (result := self._result(task, judgement)) is not None:
                results.append(result)
        # Rows before files: killed in between, a record is left over, which `forget` removes. In the other order, an
        # open job would have lost its record.
        jobs.settle(self.project, settled)
        client.cancel([task.job.id for task, _ in over if task.is_waiting])  # held, or queued again: nobody needs it
        self.project.store.drop_staged(_staged(task) for task, judgement in over if judgement.verdict != "made")
        jobs.remove_records(self.project, [task.job for task, _ in over])
        return results

    def _over(self, tasks: Iterable[Task]) -> list[tuple[Task, Judgement]]:
        judged = [(task, judge(task.facts(), self.profile.grace)) for task in tasks]
        return [(task, judgement) for task, judgement in judged if judgement.verdict != "wait"]

    def _again(self, task: Task, judgement: Judgement) -> PendingCall | None:
        """Another try, where there is to be one."""
        job, call, after = task.job, self.calls[task.job.key], 0.0
        if self.wish != "go":
            return None
        before, needs, most = job_end(task, judgement), job.needs, self.profile.tries
        # The cluster's fault is no try of the call's, and no reason to request more.
        if judgement.verdict == "again":
            return PendingCall(call, needs, job.tries, job.requeues + 1, before)
        if judgement.verdict == "failed":
            # Whoever cancels a job by hand does not want it back at once.
            was_wanted = task.state != "CANCELLED"
            most = self.project.steps[job.node[0]].resources.retries + 1 if was_wanted else 0
        elif judgement.verdict == "unknown":
            # Where accounting is disabled, every job that is killed ends so. Without a wait that grows, it comes back
            # at once.
            after = time.monotonic() + self.profile.grace * 2 ** (job.tries - 1)
        elif judgement.verdict in ("more-memory", "more-time"):
            needs = grown_needs(self.profile, needs, "memory" if judgement.verdict == "more-memory" else "time")
        else:
            most = 0
        return (
            PendingCall(call, needs, job.tries + 1, job.requeues, before, after) if needs and job.tries < most else None
        )

    def _result(self, task: Task, judgement: Judgement) -> StepResult | None:
        """The result of a job; None if it was withdrawn, because nobody tried it."""
        if judgement.verdict == "withdrawn" or (self.wish != "go" and judgement.verdict == "again"):
            return None
        if judgement.verdict == "made":
            return task.result
        job = task.job
        return StepResult(job.call, job.node, job.key, failure(self.project, task, judgement), task.log(self.project))

    def _refused(self) -> list[StepResult]:
        """Tries that request more than the cluster has: the last accepted try is the failure."""
        found = []
        for wanted, said in self.outbox.refused:
            call, before = wanted.call, wanted.instead_of
            why = f"{before.why}, and Slurm refuses to give it more: {said}" if before else said
            log = before.job.log if before else None
            found.append(StepResult(call.attempt, call.node, call.key, why, log))
        self.outbox.refused = []
        return found

    def _account(self, tasks: Sequence[Task]) -> list[Task]:
        """Jobs for which accounting has answered, with their used resources if it knows them."""
        told = [task for task in tasks if task.exact is not None]
        for task, found in self._accounted([(task, task.since) for task in tasks if task.exact is None]):
            seen = (found or {}).get(task.job.named)
            if seen is not None and is_over(seen.state):  # it may be behind
                task.exact = seen
            told.append(task)
        return told

    def apply_end(self, wish: RunEnd) -> None:
        """Withdraw waiting jobs (`slow`), cancel everything (`fast`), or leave the jobs to the next run (`leave`)."""
        if wish == "leave":
            self.note(left_jobs_text(len(self.tasks), "stay in Slurm"))
            return
        self.outbox.drop()
        for task in self.tasks.values():
            task.withdrawn = True
        self._cancel()
        self.polling.expect_change()

    def _cancel(self) -> None:
        """Cancel jobs. If Slurm missed it, the command is sent again when Slurm answers."""
        only_queued = self.wish == "slow"
        arrays = sorted({str(task.job.array) for task in self.tasks.values() if task.job.batch not in self.left})
        # Of an array that an earlier run left, only the jobs that this run took over: others may be another run's. Not
        # with --state, for which scancel takes a waiting task for its whole array (Slurm 22.05).
        taken = [task for task in self.tasks.values() if task.job.batch in self.left]
        chosen = [task.job.id for task in taken if task.is_waiting or not only_queued]
        heard = client.cancel(arrays, only_queued=only_queued), client.cancel(chosen)
        self.unheard = not all(heard) or (only_queued and any(task.state == NOT_ASKED for task in taken))
