"""The catalog's rows of batches and jobs: written before sbatch, so that no job is unknown or submitted twice."""

import json
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, select, update

from ctcore.catalog.engine import Writer, bind_keys, in_bound_keys, in_keys
from ctcore.catalog.tables import slurm_batch, slurm_job
from ctcore.config.slurm_profiles import Needs
from ctcore.execution.call import StepResult
from ctcore.execution.slurm import submit
from ctcore.execution.slurm.client import Named
from ctcore.model.node import Node
from ctcore.project import Project
from ctcore.projects import leases
from ctcore.util.clock import now

RECORD_S = 2.0
MADE = "made"  # `why` of a job that went well


@dataclass
class Job:
    """One call in one batch, as it was submitted or is meant to be."""

    batch: str
    index: int
    key: str
    node: Node
    call: str
    needs: Needs
    profile: str
    tries: int = 1
    requeues: int = 0
    array: str | None = None
    state: str = ""
    log: str | None = None
    slurm_node: str | None = None
    intended_at: str = ""

    @property
    def id(self) -> str:
        """Its number in Slurm."""
        return f"{self.array}_{self.index}"

    @property
    def named(self) -> Named:
        """As Slurm tells it from all others, also from those of the same number."""
        return self.batch, self.id


@dataclass(frozen=True)
class JobEnd:
    """A job's verdict and its used resources."""

    job: Job
    state: str
    why: str
    node: str | None = None
    elapsed_s: float | None = None
    cpu_s: float | None = None
    used_mb: float | None = None


def record_batch(project: Project, jobs: Sequence[Job], run_id: str | None, instead_of: Iterable[JobEnd] = ()) -> None:
    """Write down a batch before it is submitted, and that its leases are in Slurm's hands."""
    first = jobs[0]
    with project.catalog.write() as writer:
        # In one transaction: a run that dies between closing a try and writing down the next would leave the key to
        # nobody.
        _settle(writer, instead_of)
        writer.insert(
            slurm_batch,
            [
                {
                    "id": first.batch,
                    "asset": first.node[0],
                    "profile": first.profile,
                    "run_id": run_id,
                    "cpus": first.needs.cpus,
                    "memory_mb": first.needs.memory_mb,
                    "minutes": first.needs.minutes,
                    "job": None,
                    "intended_at": now(),
                }
            ],
        )
        writer.insert(slurm_job, [_row(job) for job in jobs])
        leases.hand_over(writer, [job.key for job in jobs], leases.SLURM + first.batch)


def mark_submitted(project: Project, batch: str, number: str) -> None:
    """Slurm took the batch under this number."""
    with project.catalog.write() as writer:
        writer.execute(update(slurm_batch).where(slurm_batch.c.id == batch).values(job=number))


def settle(project: Project, ended: Sequence[JobEnd]) -> None:
    """Write down how jobs ended: one statement for all of them."""
    if ended:
        with project.catalog.write() as writer:
            _settle(writer, ended)


def open_jobs(project: Project, keys: Iterable[str] | None = None) -> list[Job]:
    """Jobs without a verdict, of these keys or of the whole project."""
    mine = slurm_job.c.ended_at.is_(None)
    if keys is not None:
        mine &= in_keys(slurm_job.c.key, keys)
    with project.catalog.read() as connection:
        rows = connection.execute(
            select(slurm_job, slurm_batch)
            .join(slurm_batch, slurm_batch.c.id == slurm_job.c.batch)
            .where(mine)
            .order_by(slurm_batch.c.intended_at, slurm_job.c.idx)
        ).all()
    return [_job(row) for row in rows]


def take_records(project: Project, keys: Iterable[str]) -> None:
    """Take the records of jobs that ended well while nobody waited, and keep their used resources."""
    done = []
    listed = open_jobs(project, keys)
    _wait_for_records([project.work / "results" / f"{job.call}.json" for job in listed])
    for job in listed:
        path = project.work / "results" / f"{job.call}.json"
        with suppress(FileNotFoundError):
            result = StepResult(**json.loads(path.read_bytes()))
            if result.error is None:
                used = {name: result.used.get(name) for name in ("node", "elapsed_s", "cpu_s", "used_mb")}
                done.append(JobEnd(job, "COMPLETED", MADE, **used))
    settle(project, done)
    remove_records(project, [one.job for one in done])


def _wait_for_records(paths: Sequence[Path]) -> None:
    """A job publishes first and writes its record then: one that was just published is about to have one."""
    # Bounded: the process may have died between the two.
    deadline = time.monotonic() + RECORD_S
    while any(not path.exists() for path in paths) and time.monotonic() < deadline:
        time.sleep(0.05)


_CLOSE = (
    update(slurm_job)
    .where(in_bound_keys(slurm_job.c.key), slurm_job.c.ended_at.is_(None))
    .values(state="COMPLETED", why=MADE, ended_at=bindparam("at"))
)


def close(writer: Writer, keys: Iterable[str]) -> None:
    """Close jobs whose artifacts are recorded: nobody needs to wait for them any more."""
    writer.execute(_CLOSE, {"keys": bind_keys(keys), "at": now()})


def remove_records(project: Project, listed: Sequence[Job]) -> None:
    """Remove taken records, the calls, and the folders of batches in which every job succeeded. Without its call, a
    job that Slurm starts again (a killed controller forgets what ended last) runs nothing."""
    for job in listed:
        (project.work / "results" / f"{job.call}.json").unlink(missing_ok=True)
        submit.call_of(project, job.batch, job.index).unlink(missing_ok=True)
    batches = {job.batch for job in listed}
    with project.catalog.read() as connection:
        kept = set(
            connection.execute(
                select(slurm_job.c.batch).where(
                    in_keys(slurm_job.c.batch, batches),
                    slurm_job.c.ended_at.is_(None) | (slurm_job.c.why != MADE),
                )
            ).scalars()
        )
    for batch in batches - kept:
        submit.remove(project, batch)


def _settle(writer: Writer, ended: Iterable[JobEnd]) -> None:
    rows = [
        {
            "_batch": one.job.batch,
            "_key": one.job.key,
            "state": one.state,
            "why": one.why,
            "node": one.node,
            "elapsed_s": one.elapsed_s,
            "cpu_s": one.cpu_s,
            "used_mb": one.used_mb,
            "log": one.job.log,
            "ended_at": now(),
        }
        for one in ended
    ]
    if rows:
        mine = (slurm_job.c.batch == bindparam("_batch")) & (slurm_job.c.key == bindparam("_key"))
        values = {name: bindparam(name) for name in rows[0] if not name.startswith("_")}
        writer.execute(update(slurm_job).where(mine).values(values), rows)


def _row(job: Job) -> dict[str, Any]:
    return {
        "batch": job.batch,
        "key": job.key,
        "idx": job.index,
        "partition": job.node[1],
        "call": job.call,
        "tries": job.tries,
        "requeues": job.requeues,
        "state": "",
        "log": job.log,
    }


def _job(row: Any) -> Job:
    return Job(
        batch=row.batch,
        index=row.idx,
        key=row.key,
        node=(row.asset, row.partition),
        call=row.call,
        needs=Needs(row.cpus, row.memory_mb, row.minutes),
        profile=row.profile,
        tries=row.tries,
        requeues=row.requeues,
        array=row.job,
        state=row.state,
        log=row.log,
        slurm_node=row.node,
        intended_at=row.intended_at,
    )
