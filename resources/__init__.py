"""Thin Dagster resources: how assets and sensors reach the project and the place where steps run."""

import os
from pathlib import Path

import dagster as dg
from pydantic import Field, create_model

from ctcore import progress
from ctcore.catalog.life import refused
from ctcore.making import Runner
from ctcore.progress import Reader
from ctcore.project import Project
from ctcore.slurm.choose import VARIABLE, runner_of
from ctcore.slurm.profiles import LOCAL, Overrides
from ctcore.slurm.stop import Stop


class CtProject(dg.ConfigurableResource):
    """The project directory: its catalog, its store, its steps."""

    root: str = Field(description="The directory that holds ct.toml.")

    def open(self) -> Project:
        """The project as it is now: settings and steps are read again."""
        return Project.find(Path(self.root))

    def to_write(self) -> Project:
        """The same for what will write: a failed run, before any work, where the project is archived."""
        project = self.open()
        if why := closed(project):
            raise dg.Failure(why, allow_retries=False)
        return project


def closed(project: Project) -> str | None:
    """Why nothing may be written, for a sensor to say; None where it may."""
    life = project.catalog.life()
    return refused(project.id, life) if life.is_archived else None


class Jobs(dg.ConfigurableResource):
    """Runs steps through submitit: on this machine, or as job arrays on Slurm."""

    profile: str = Field(default="", description="Where they run; empty: as CT_PROFILE says.")
    workers: int = Field(
        default=0, ge=0, description="Local worker processes at once; 0: as ct.toml says, or one a core."
    )
    cpus: int = Field(default=0, ge=0, description="CPUs a job, whatever step and profile say; 0: as they say.")
    memory_gb: float = Field(default=0, ge=0, description="GiB of memory a job; 0: as step and profile say.")
    minutes: int = Field(default=0, ge=0, description="Minutes of wall time a job; 0: as step and profile say.")

    def runner(self, project: Project, stop: Stop | None = None, note: Reader = progress.note) -> Runner:
        """`stop` knows when the run is cancelled; `note` is told how it goes."""
        asked = Overrides(self.cpus or None, self.memory_gb or None, self.minutes or None)
        return runner_of(project, self.profile, self.workers, asked, stop, note)


def jobs_of(project: Project) -> Jobs:
    """The launchpad shows the profile that holds without a word, and beside it those that there are."""
    there = ", ".join([LOCAL, *project.settings.slurm])
    described = Field(default=os.environ.get(VARIABLE) or LOCAL, description=f"Where they run. There is: {there}.")
    return create_model("Jobs", __base__=Jobs, __doc__=Jobs.__doc__, profile=(str, described))()
