"""Leases on keys: one process works on a key at a time, in this run or another. A dead process's lease is free."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, delete, select, true, update

from ctcore.catalog.engine import Writer, bind_keys, in_bound_keys, in_keys
from ctcore.catalog.tables import lease
from ctcore.model.node import Node
from ctcore.project import Project
from ctcore.projects.heartbeats import is_silent, start_heartbeat
from ctcore.util.clock import now
from ctcore.util.processes import host_name, process_name, started_at

SLURM = "slurm:"  # before the name of a batch, where a job in Slurm works on a key


def is_alive(name: str | None, work: Path) -> bool:
    """Whether a process still runs. On another host: whether it gave a sign of life in `work` recently.

    A Slurm job blocks nobody: the process that takes its key waits for the job.
    """
    if not name or name.startswith(SLURM):
        return False
    # The number alone is not enough: the kernel gives it again to another process.
    host, pid, start = name.rsplit(":", 2)
    if host != host_name():
        return not is_silent(work, name)
    return started_at(int(pid)) == int(start)


def living_processes(project: Project, names: Iterable[str | None]) -> set[str | None]:
    """Those of these processes that still run, each looked at once."""
    return {name for name in set(names) if is_alive(name, project.work)}


def take(project: Project, calls: Sequence[tuple[str, Node]], run_id: str | None) -> set[str]:
    """Take the leases of these keys; those of living processes stay theirs. Returns the keys now ours."""
    keys = [key for key, _ in calls]
    start_heartbeat(project.work, process_name())
    with project.catalog.write() as writer:
        # Inside the write transaction: two runs cannot both find a key free.
        held = writer.execute(select(lease).where(in_keys(lease.c.key, keys))).all()
        alive = living_processes(project, [name for row in held for name in (row.owner, row.job)])
        busy = {row.key for row in held if row.owner in alive or row.job in alive}
        writer.execute(delete(lease).where(in_keys(lease.c.key, {row.key for row in held} - busy)))
        mine = [(key, node) for key, node in dict(calls).items() if key not in busy]
        writer.insert(
            lease,
            [
                {
                    "key": key,
                    "asset": node[0],
                    "partition": node[1],
                    "owner": process_name(),
                    "job": None,
                    "run_id": run_id,
                    "since": now(),
                }
                for key, node in mine
            ],
        )
    return {key for key, _ in mine}


def abandoned_keys(project: Project, keys: Iterable[str]) -> set[str]:
    """Of these keys those whose run has ended, while a process that it started may still work on them."""
    return {row.key for row in _of_ended_runs(project, in_keys(lease.c.key, keys))}


def orphaned_nodes(project: Project) -> set[Node]:
    """Nodes on which a process works that outlived its run."""
    return {(row.asset, row.partition) for row in _of_ended_runs(project, true())}


def _of_ended_runs(project: Project, mine: ColumnElement[bool]) -> list[Any]:
    with project.catalog.read() as connection:
        rows = connection.execute(select(lease).where(mine)).all()
    alive = living_processes(project, (row.owner for row in rows))
    return [row for row in rows if row.owner not in alive]


def assign_leases(project: Project, keys: Iterable[str], job: str) -> None:
    """Say which process works on these keys: they stay busy while it lives, also if its run dies."""
    with project.catalog.write() as writer:
        hand_over(writer, keys, job)


def hand_over(writer: Writer, keys: Iterable[str], job: str) -> None:
    writer.execute(update(lease).where(in_keys(lease.c.key, keys)).values(job=job))


def give_back_ours(project: Project, keys: Iterable[str]) -> None:
    """Those of these keys that this process still holds."""
    with project.catalog.write() as writer:
        ours = in_keys(lease.c.key, keys) & (lease.c.owner == process_name())
        writer.execute(delete(lease).where(ours))


_GIVE_BACK = delete(lease).where(in_bound_keys(lease.c.key))


def give_back(writer: Writer, keys: Iterable[str]) -> None:
    writer.execute(_GIVE_BACK, {"keys": bind_keys(keys)})


def give_back_idle(project: Project, writer: Writer, keys: Iterable[str]) -> None:
    """Those on which no process works any more."""
    held = writer.execute(select(lease.c.key, lease.c.job).where(in_keys(lease.c.key, keys))).all()
    alive = living_processes(project, (row.job for row in held))
    give_back(writer, [row.key for row in held if row.job not in alive])
