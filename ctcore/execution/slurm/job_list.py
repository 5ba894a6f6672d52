"""For people: the jobs of a project with their states of now, and the log of a node."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from ctcore.catalog.tables import artifact, materialization, slurm_batch, slurm_job
from ctcore.config.slurm_profiles import MIB_PER_GIB, Profile
from ctcore.execution.slurm import client
from ctcore.execution.slurm.status_cache import PATIENCE_S, Answers
from ctcore.execution.slurm.submit import output_of
from ctcore.execution.slurm.tasks import has_text
from ctcore.lineage.walk import Making
from ctcore.model.node import Node, name_of
from ctcore.project import Project
from ctcore.store.call_log import kept_lines
from ctcore.store.manifest import LOG

SHOWN = 100


@dataclass(frozen=True)
class JobRow:
    """One line of `ct jobs`."""

    node: str
    job: str
    state: str
    since: str
    on: str
    profile: str
    asked: str
    tries: int
    run: str
    log: str


@dataclass(frozen=True)
class JobList:
    """Jobs, and whether Slurm answered."""

    jobs: list[JobRow]
    answered: bool


def listed_jobs(project: Project, also_ended: bool = False) -> JobList:
    """Open jobs with squeue's answer of the last poll; on request, the last ended ones too."""
    joined = select(slurm_job, slurm_batch).join(slurm_batch, slurm_batch.c.id == slurm_job.c.batch)
    is_open = slurm_job.c.ended_at.is_(None)
    with project.catalog.read() as connection:
        rows = list(connection.execute(joined.where(is_open).order_by(slurm_batch.c.intended_at, slurm_job.c.idx)))
        if also_ended:
            rows += connection.execute(joined.where(~is_open).order_by(slurm_job.c.ended_at.desc()).limit(SHOWN))
    known = _queue(project) if any(row.ended_at is None for row in rows) else {}
    shown = [_shown(row, (known or {}).get((row.batch, f"{row.job}_{row.idx}"))) for row in rows]
    return JobList(shown, answered=known is not None)


def _queue(project: Project) -> dict[client.Named, client.TaskStatus] | None:
    poll = min((profile.poll for profile in project.settings.slurm.values()), default=Profile.poll)
    answer = Answers(project, PATIENCE_S).queue(poll)
    return answer and answer.rows


def _shown(row: Any, seen: client.TaskStatus | None) -> JobRow:
    number = f"{row.job}_{row.idx}" if row.job else "not submitted"
    state = seen.state if seen else row.state or "unknown"
    if seen and seen.reason not in ("", "None") and seen.state == "PENDING":
        state += f" ({seen.reason})"
    elapsed = seen.elapsed_s if seen else row.elapsed_s
    return JobRow(
        node=name_of((row.asset, row.partition)),
        job=number,
        state=state if row.ended_at is None else f"{row.state}: {row.why}",
        since=_duration(elapsed),
        on=(seen.node if seen else row.node) or "",
        profile=row.profile,
        asked=f"{row.cpus} CPU, {row.memory_mb / MIB_PER_GIB:.3g} GiB, {row.minutes} min",
        tries=row.tries + row.requeues,
        run=row.run_id or "",
        log=row.log or "",
    )


def _duration(elapsed_s: float | None) -> str:
    if not elapsed_s:
        return ""
    return f"{elapsed_s:.1f} s" if elapsed_s < 60 else str(timedelta(seconds=round(elapsed_s)))


def log_of(project: Project, node: Node) -> Path | None:
    """The log written last; if the call printed nothing, its job's log."""
    folder = project.work / "logs" / node[0] / node[1]
    logs = [path for path in folder.glob("*.log") if has_text(path)]
    if logs:
        return max(logs, key=lambda path: path.stat().st_mtime_ns)
    with project.catalog.read() as connection:
        row = connection.execute(
            select(slurm_job, slurm_batch)
            .join(slurm_batch, slurm_batch.c.id == slurm_job.c.batch)
            .where(slurm_batch.c.asset == node[0], slurm_job.c.partition == node[1])
            .order_by(slurm_batch.c.intended_at.desc())
            .limit(1)
        ).first()
    if row is not None and row.job is not None:
        said = output_of(project, row.batch, f"{row.job}_{row.idx}")
        if has_text(said):
            return said
    return next(iter(folder.glob("*.log")), None)


def kept_log_of(project: Project, node: Node) -> Path | None:
    """The log stored with a node's current artifact."""
    with project.catalog.read() as connection:
        mine = (artifact.c.asset == node[0]) & (artifact.c.partition == node[1])
        joined = select(materialization.c.folder).join(artifact, artifact.c.materialization == materialization.c.id)
        folder = connection.execute(joined.where(mine)).scalar()
    return _existing(project.store.root / folder / LOG) if folder else None


def log_of_making(project: Project, one: Making) -> Path | None:
    """The log stored with a making; for makings without a stored log, the last log of the call."""
    logs = (project.work / "logs" / one.asset / one.partition).glob(f"{one.key[:16]}.*.log")
    last = max(logs, key=lambda path: path.stat().st_mtime_ns, default=None)
    return _existing(project.store.root / one.folder / LOG) or last


def lines_of(place: Path) -> Iterator[str]:
    """The lines of a log, be it a kept one."""
    if place.name == LOG:
        yield from kept_lines(place)
        return
    with place.open(errors="replace") as lines:
        yield from lines


def _existing(place: Path) -> Path | None:
    return place if place.is_file() else None
