"""The job behind an artifact, and its use of the requested resources."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import slurm_batch, slurm_job
from ctcore.execution.slurm.jobs import MADE
from ctcore.project import Project


@dataclass(frozen=True)
class JobUsage:
    """The job behind an artifact. Efficiencies are shares of the requested resources."""

    id: str
    state: str
    node: str | None
    attempts: int
    elapsed_s: float | None
    cpus: int
    cpu_s: float | None
    memory_mb: int
    used_mb: float | None
    log: str | None

    @property
    def cpu_efficiency(self) -> float | None:
        if not self.elapsed_s or self.cpu_s is None:
            return None
        return round(self.cpu_s / (self.elapsed_s * self.cpus), 3)

    @property
    def memory_efficiency(self) -> float | None:
        return None if self.used_mb is None else round(self.used_mb / self.memory_mb, 3)


def usage_by_key(project: Project, keys: Iterable[str]) -> dict[str, JobUsage]:
    """The last job of each key that went well; keys that were not made in Slurm are left out."""
    with project.catalog.read() as connection:
        rows = connection.execute(
            select(slurm_job, slurm_batch)
            .join(slurm_batch, slurm_batch.c.id == slurm_job.c.batch)
            .where(in_keys(slurm_job.c.key, keys), slurm_job.c.why == MADE)
            .order_by(slurm_job.c.ended_at)
        ).all()
    return {
        row.key: JobUsage(
            id=f"{row.job}_{row.idx}",
            state=row.state,
            node=row.node,
            attempts=row.tries + row.requeues,
            elapsed_s=row.elapsed_s,
            cpus=row.cpus,
            cpu_s=row.cpu_s,
            memory_mb=row.memory_mb,
            used_mb=row.used_mb,
            log=row.log,
        )
        for row in rows
    }
