"""Jobs that nobody needs any more and that Slurm would still start: held after their node failed, or found again by
a controller that had forgotten them. They are cancelled."""

from collections.abc import Mapping

from sqlalchemy import select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import slurm_job
from ctcore.execution.slurm import client
from ctcore.execution.slurm.client import Named, TaskStatus
from ctcore.execution.slurm.states import WAITING
from ctcore.project import Project


def cancel_leftovers(project: Project, rows: Mapping[Named, TaskStatus]) -> int:
    """Cancel the waiting jobs among these that the catalog knows as ended. Returns their number."""
    waiting = {named for named, seen in rows.items() if seen.state in WAITING}
    if not waiting:
        return 0
    with project.catalog.read() as connection:
        # By batch and index, not by number: a controller that lost its state gives numbers again.
        mine = in_keys(slurm_job.c.batch, {batch for batch, _ in waiting}) & slurm_job.c.ended_at.is_not(None)
        found = connection.execute(select(slurm_job.c.batch, slurm_job.c.idx).where(mine))
        ended = {(batch, str(index)) for batch, index in found}
    left = sorted(task for batch, task in waiting if (batch, task.rpartition("_")[2]) in ended)
    return len(left) if client.cancel(left) else 0
