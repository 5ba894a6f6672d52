"""Jobs of dead runs: settled from Slurm's states, the result records and the store."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import select, update

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import lease, slurm_job
from ctcore.execution import ledger
from ctcore.execution.call import StepResult
from ctcore.execution.slurm import jobs
from ctcore.execution.slurm.client import Named, TaskStatus
from ctcore.execution.slurm.held_jobs import cancel_leftovers
from ctcore.execution.slurm.jobs import Job, JobEnd
from ctcore.execution.slurm.states import Judgement, is_over, judge
from ctcore.execution.slurm.status_cache import PATIENCE_S, Answers
from ctcore.execution.slurm.tasks import Task, failure, job_end
from ctcore.project import Project
from ctcore.projects import leases

LEFT_S = 300.0  # how often the queue is looked through for jobs that nobody needs
KEPT_S = 7 * 24 * 3600  # folders of batches in which something failed


@dataclass(frozen=True)
class Reconciliation:
    """The outcome: jobs still in Slurm, and settled ones by verdict. `answered`: Slurm answered."""

    left: int
    settled: dict[str, int]
    answered: bool = True


def sweep(project: Project) -> Reconciliation:
    """Record ended jobs. A state must be seen twice before it counts against a job, because its record may come
    late."""
    began = time.monotonic()
    orphans = jobs_without_run(project)
    _tidy_folders(project)
    answers = Answers(project, PATIENCE_S)
    if not orphans:
        if (seen := answers.queue(LEFT_S) if _has_leftovers(project) else None) is not None:
            cancel_leftovers(project, seen.rows or {})
        return Reconciliation(0, {})
    queued = answers.queue(after=began)  # what was asked before may be older than a job
    if queued is None or queued.rows is None:
        return Reconciliation(len(orphans), {}, answered=False)
    cancel_leftovers(project, queued.rows)
    known = [job for job in orphans if job.array is not None or _found(project, job, queued.rows)]
    tasks = _look(project, known, answers, queued.rows)
    for task in tasks:
        if is_over(task.state):
            task.look_for_artifact(project)
    over = [(task, judgement) for task in tasks if (judgement := _judged(task)).verdict != "wait"]
    _remember(project, tasks, over)
    with _taken(project, over) as mine:
        settled = _settle(project, mine)
    lost = len(orphans) - len(known)
    return Reconciliation(len(tasks) - len(mine) + lost, dict(settled))


def jobs_without_run(project: Project) -> list[Job]:
    """The open jobs whose key no living process holds."""
    listed = jobs.open_jobs(project)
    if not listed:
        return []
    with project.catalog.read() as connection:
        rows = connection.execute(
            select(lease.c.key, lease.c.owner).where(in_keys(lease.c.key, {job.key for job in listed}))
        ).all()
        alive = leases.living_processes(project, (row.owner for row in rows))
        watched = {row.key for row in rows if row.owner in alive}
    return [job for job in listed if job.key not in watched]


@contextmanager
def _taken(project: Project, over: Sequence[tuple[Task, Judgement]]) -> Iterator[list[tuple[Task, Judgement]]]:
    """Slurm may have been slow to answer, and a new run may have begun: its jobs are its own, and settled ones are."""
    mine = leases.take(project, [(task.job.key, task.job.node) for task, _ in over], None)
    try:
        still = {job.call for job in jobs.open_jobs(project, mine)}
        yield [(task, judgement) for task, judgement in over if task.job.call in still]
    finally:
        leases.give_back_ours(project, mine)


def _found(project: Project, job: Job, queued: Iterable[Named]) -> bool:
    """A batch that may or may not have been submitted: the run that wants its nodes will look for it."""
    numbers = {task.partition("_")[0] for batch, task in queued if batch == job.batch}
    if numbers:
        job.array = max(numbers, key=int)
        jobs.mark_submitted(project, job.batch, job.array)
    return bool(numbers)


def _look(project: Project, listed: Sequence[Job], answers: Answers, queued: Mapping[Named, TaskStatus]) -> list[Task]:
    unknown = {str(job.array) for job in listed if job.named not in queued}
    answer = answers.account(unknown) if unknown else None
    accounted = answer.rows if answer else None
    tasks = []
    for job in listed:
        task = Task(job)
        if (seen := queued.get(job.named)) is not None:
            task.update_from_queue(seen)
        elif accounted is not None:
            task.lost_from_queue(accounted.get(job.named))
        record = project.work / "results" / f"{job.call}.json"
        if record.is_file():
            task.read(StepResult(**json.loads(record.read_bytes())))
        tasks.append(task)
    return tasks


def _judged(task: Task) -> Judgement:
    # An infinite grace at the first sight: the time between two sweeps is the grace here.
    seen_before = is_over(task.state) and task.job.state == task.state
    return judge(task.facts(), grace_s=0.0 if seen_before else float("inf"))


def _remember(project: Project, tasks: Sequence[Task], over: Sequence[tuple[Task, Judgement]]) -> None:
    """The states that were seen, for the next sweep."""
    judged = {task.job.call for task, _ in over}
    changed = [task for task in tasks if task.job.call not in judged and task.state != task.job.state]
    if changed:
        with project.catalog.write() as writer:
            for state in {task.state for task in changed}:
                calls = [task.job.call for task in changed if task.state == state]
                mine = in_keys(slurm_job.c.call, calls)
                writer.execute(update(slurm_job).where(mine).values(state=state))


def _settle(project: Project, over: Sequence[tuple[Task, Judgement]]) -> Counter[str]:
    """Record made results and failures of steps; other nodes stay missing and are requested again."""
    made = [task for task, judgement in over if judgement.verdict == "made"]
    published = [project.store.find(*task.job.node, task.job.key) for task in made]
    # The ledger before the jobs: killed in between, the next sweep finds them open and records the same again.
    ledger.record(project, [one for one in published if one is not None])
    failed = [
        ledger.FailedCall(task.job.node, task.job.key, failure(project, task, judgement), task.log(project))
        for task, judgement in over
        if judgement.verdict == "failed"
    ]
    ledger.record_failures(project, failed, None)
    listed: list[JobEnd] = [job_end(task, judgement) for task, judgement in over]
    jobs.settle(project, listed)
    lost = [(*task.job.node, task.job.key) for task, judgement in over if judgement.verdict != "made"]
    project.store.drop_staged(lost)
    jobs.remove_records(project, [task.job for task, _ in over])
    return Counter(judgement.verdict for _, judgement in over)


def _has_leftovers(project: Project) -> bool:
    """Whether folders of batches are left: a batch in which every job succeeded leaves none."""
    return any((project.work / "slurm").glob("*"))


def _tidy_folders(project: Project) -> None:
    before = time.time() - KEPT_S
    wanted = {job.batch for job in jobs.open_jobs(project)}
    for folder in (project.work / "slurm").glob("*"):
        if folder.name not in wanted and folder.stat().st_mtime < before:
            shutil.rmtree(folder, ignore_errors=True)
