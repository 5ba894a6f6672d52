"""Dagster resources: the project, and the runner that executes steps."""

import os
from pathlib import Path

import dagster as dg
from pydantic import Field, create_model

from ctcore.catalog.ownership import refusal_text
from ctcore.config.slurm_profiles import LOCAL, Overrides
from ctcore.execution.materialize import Runner
from ctcore.execution.runners import VARIABLE, runner_of
from ctcore.execution.slurm.cancel import Beside, Stop
from ctcore.project import Project
from ctcore.util import progress
from ctcore.util.progress import Reader

_written: dict[Path, Project] = {}
"""The project that this process opened last to write to it."""


class CtProject(dg.ConfigurableResource):
    """The project: its catalog, store and steps."""

    root: str = Field(description="The directory that holds ct.toml.")

    def open(self) -> Project:
        """Open the project, with settings and steps read again."""
        return Project.find(Path(self.root))

    def to_write(self) -> Project:
        """Open the project to write to it; a run does for each of its steps, and reads only files that changed.
        dg.Failure before any work if the project is archived."""
        project = self.open()
        # Not for a look: what a step file read when it was run (a table, say) may be another one by now, and a sensor
        # would never hear of it. In a run, the worker refuses a call whose code is not that of its key.
        if (before := _written.get(project.root)) is not None:
            project = before.reopened()
        _written.clear()
        _written[project.root] = project
        if why := closed(project):
            raise dg.Failure(why, allow_retries=False)
        return project


def closed(project: Project) -> str | None:
    """Why nothing may be written to the project, for a sensor's skip reason; None where writing is allowed."""
    life = project.catalog.project_state()
    return refusal_text(project.id, life) if life.is_archived else None


class Jobs(dg.ConfigurableResource):
    """Runs steps: on this machine, or as job arrays on Slurm."""

    profile: str = Field(default="", description="Profile of the steps; empty: the value of CT_PROFILE.")
    workers: int = Field(
        default=0, ge=0, description="Most local worker processes; 0: the value of ct.toml, or one a core."
    )
    cpus: int = Field(default=0, ge=0, description="CPUs a job, in place of step and profile; 0: their values.")
    memory_gb: float = Field(default=0, ge=0, description="GiB of memory a job; 0: the values of step and profile.")
    minutes: int = Field(default=0, ge=0, description="Minutes of wall time a job; 0: the values of step and profile.")

    def runner(
        self,
        project: Project,
        stop: Stop | None = None,
        note: Reader = progress.note,
        beside: Beside | None = None,
    ) -> Runner:
        """The runner for one run. `stop` reports a cancelled run; `note` receives lines about progress; `beside` is
        driven while it waits."""
        asked = Overrides(self.cpus or None, self.memory_gb or None, self.minutes or None)
        return runner_of(project, self.profile, self.workers, asked, stop, note, beside)


def jobs_of(project: Project) -> Jobs:
    """The resource with the default profile filled in, and the available profiles in its description."""
    there = ", ".join([LOCAL, *project.settings.slurm])
    described = Field(default=os.environ.get(VARIABLE) or LOCAL, description=f"Profile of the steps: {there}.")
    return create_model("Jobs", __base__=Jobs, __doc__=Jobs.__doc__, profile=(str, described))()
