"""The states of a project: active, complete, archived. An archived project refuses every write.

The catalog records the state and checks it at its only way to write. Compute nodes write to the store without opening
the catalog, so a file beside the artifacts repeats the state.
"""

from dataclasses import asdict

from sqlalchemy import func, select

from ctcore.catalog.engine import Writer, upsert
from ctcore.catalog.ownership import STATE, ProjectState, State, project_state_of, refusal_text, settings_of
from ctcore.catalog.tables import lease, setting, slurm_job
from ctcore.errors import ProjectError, Usage
from ctcore.project import Project
from ctcore.projects.leases import living_processes

EVENT = "project"


def change_state(project: Project, to: State, reason: str) -> ProjectState:
    """Make it active, complete or archived, for a reason, which is kept. Usage error where it is that already."""
    said = reason.strip()
    if not said or not said.isprintable():
        raise Usage("why? --reason TEXT, in one line: it is kept beside your name")
    tell_store(project)  # also what a crash kept from it
    with project.catalog.write(though_archived=True) as writer:
        before = project_state_of(settings_of(writer.connection))
        if before.state == to:
            raise Usage(f"{project.id} is {before.words}: there is nothing to change")
        if to == "archived":
            _refuse_busy(project, writer)
        life = ProjectState(to, writer.at, project.catalog.actor, said)
        upsert(writer, setting, [{"name": STATE, "value": life.text()}])
        writer.event(EVENT, project.id, {"from": before.state, **asdict(life)})
    tell_store(project)
    return life


def tell_store(project: Project) -> None:
    """Make the store refuse writes, or allow them again, as the catalog does."""
    life = project.catalog.project_state()
    project.store.close(refusal_text(project.id, life) if life.is_archived else None)


def _refuse_busy(project: Project, writer: Writer) -> None:
    """Refuse while something runs: its results could not be recorded and would be lost."""
    held = writer.execute(select(lease.c.owner, lease.c.job)).all()
    alive = living_processes(project, [name for row in held for name in (row.owner, row.job)])
    nodes = sum(row.owner in alive or row.job in alive for row in held)
    still = select(func.count()).select_from(slurm_job).where(slurm_job.c.ended_at.is_(None))
    jobs = writer.execute(still).scalar()
    if nodes or jobs:
        raise ProjectError(
            f"{project.id}: {nodes} nodes are being made and {jobs} jobs are in Slurm: let them end, or end them "
            "(`ct status`, `ct jobs`), and archive it then"
        )
