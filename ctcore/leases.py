"""④ Who works on a key: one process at a time, here or in another run. A dead one's lease is free."""

import os
import socket
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, delete, select, true, update

from ctcore.beats import beat, is_silent
from ctcore.catalog.engine import Writer, among, bound, in_keys
from ctcore.catalog.tables import lease
from ctcore.clock import now
from ctcore.project import Project
from ctcore.reasons import Node

SLURM = "slurm:"  # before the name of a batch, where a job in Slurm works on a key


def process_name(pid: int | None = None) -> str:
    """`host:pid:start`: a process, told apart from a later one of the same number."""
    number = os.getpid() if pid is None else pid
    return f"{_host()}:{number}:{_started(number) or 0}"


def is_alive(name: str | None, work: Path) -> bool:
    """Whether a process still runs; one on another host, whether it has given a sign of life lately in `work`.

    A job in Slurm keeps nobody away: whoever takes its key goes on waiting for that job.
    """
    if not name or name.startswith(SLURM):
        return False
    host, pid, start = name.rsplit(":", 2)
    if host != _host():
        return not is_silent(work, name)
    return _started(int(pid)) == int(start)


def living(project: Project, names: Iterable[str | None]) -> set[str | None]:
    """Those of these processes that still run, each looked at once."""
    return {name for name in set(names) if is_alive(name, project.work)}


def take(project: Project, calls: Sequence[tuple[str, Node]], run_id: str | None) -> set[str]:
    """Take the leases of these keys; those of living processes stay theirs. Returns the keys now ours."""
    keys = [key for key, _ in calls]
    beat(project.work, process_name())
    with project.catalog.write() as writer:
        held = writer.execute(select(lease).where(in_keys(lease.c.key, keys))).all()
        alive = living(project, [name for row in held for name in (row.owner, row.job)])
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


def left_behind(project: Project, keys: Iterable[str]) -> set[str]:
    """Of these keys those whose run has ended, while a process that it started may still work on them."""
    return {row.key for row in _of_ended_runs(project, in_keys(lease.c.key, keys))}


def orphaned(project: Project) -> set[Node]:
    """Nodes on which a process works that outlived its run."""
    return {(row.asset, row.partition) for row in _of_ended_runs(project, true())}


def _of_ended_runs(project: Project, mine: ColumnElement[bool]) -> list[Any]:
    with project.catalog.read() as connection:
        rows = connection.execute(select(lease).where(mine)).all()
    alive = living(project, (row.owner for row in rows))
    return [row for row in rows if row.owner not in alive]


def hand_to(project: Project, keys: Iterable[str], job: str) -> None:
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


_GIVE_BACK = delete(lease).where(among(lease.c.key))


def give_back(writer: Writer, keys: Iterable[str]) -> None:
    writer.execute(_GIVE_BACK, {"keys": bound(keys)})


def give_back_idle(project: Project, writer: Writer, keys: Iterable[str]) -> None:
    """Those on which no process works any more."""
    held = writer.execute(select(lease.c.key, lease.c.job).where(in_keys(lease.c.key, keys))).all()
    alive = living(project, (row.job for row in held))
    give_back(writer, [row.key for row in held if row.job not in alive])


@cache
def _host() -> str:
    return socket.gethostname().replace(":", "_")


def _started(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None where there is none, or only its corpse."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
