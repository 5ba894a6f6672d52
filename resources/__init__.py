"""Thin Dagster resources: how assets and sensors reach the project and the place where steps run."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from ctcore.local import LocalRunner
from ctcore.making import Runner
from ctcore.project import Project


class CtProject(dg.ConfigurableResource):
    """The project directory: its catalog, its store, its steps."""

    root: str = Field(description="The directory that holds ct.toml.")

    def open(self) -> Project:
        """The project as it is now: settings and steps are read again."""
        return Project.find(Path(self.root))


class LocalJobs(dg.ConfigurableResource):
    """Runs steps on this machine through submitit's local executor."""

    workers: int = Field(default=0, description="Worker processes at once; 0 = as ct.toml says, or one a core.")

    def runner(self, project: Project) -> Runner:
        return LocalRunner(project, self.workers)
