"""Where calls run: on this machine, or on a cluster by a profile. CT_PROFILE or the run's configuration decides."""

import difflib
import os
from collections.abc import Iterator, Sequence

from ctcore.config.slurm_profiles import LOCAL, Overrides, Profile
from ctcore.errors import Usage
from ctcore.execution.call import StepCall, StepResult
from ctcore.execution.local import LocalRunner
from ctcore.execution.materialize import Runner
from ctcore.execution.slurm import jobs
from ctcore.execution.slurm.cancel import Beside, Stop
from ctcore.execution.slurm.runner import SlurmRunner
from ctcore.project import Project
from ctcore.util import progress
from ctcore.util.progress import Reader as Note

VARIABLE = "CT_PROFILE"


def chosen_profile(project: Project, name: str | None = None) -> Profile | None:
    """The profile of this name, or of CT_PROFILE; None for this machine. Usage error where there is none."""
    wanted = name or os.environ.get(VARIABLE) or LOCAL
    profiles = project.settings.slurm
    if wanted == LOCAL or wanted in profiles:
        return profiles.get(wanted)
    known = [LOCAL, *profiles]
    near = difflib.get_close_matches(wanted, known, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise Usage(f"no profile {wanted!r}; {hint}there is: {', '.join(known)} ([slurm.NAME] in ct.toml declares one)")


def runner_of(
    project: Project,
    name: str | None = None,
    workers: int = 0,
    overrides: Overrides | None = None,
    stop: Stop | None = None,
    note: Note = progress.note,
    beside: Beside | None = None,
) -> Runner:
    """The runner of a profile. Whatever the profile, jobs that are in Slurm already are waited for."""
    profile = chosen_profile(project, name)
    if profile is not None:
        return SlurmRunner(project, profile, overrides, stop, note, beside)
    return _Here(project, workers, stop, note, beside)


class _Here:
    """This machine, except for keys that a Slurm job works on: it waits for the job."""

    def __init__(
        self, project: Project, workers: int, stop: Stop | None, note: Note, beside: Beside | None = None
    ) -> None:
        self.project = project
        self.local = LocalRunner(project, workers, stop, note, beside)
        self.stop = stop
        self.note = note
        self.beside = beside

    def run(self, calls: Sequence[StepCall]) -> Iterator[list[StepResult]]:
        held = {job.key: job.profile for job in jobs.open_jobs(self.project, [call.key for call in calls])}
        here = [call for call in calls if call.key not in held]
        if here:
            yield from self.local.run(here)
        there = [call for call in calls if call.key in held]
        if there and not (self.stop and self.stop.has_failed):
            name = held[there[0].key]
            profile = self.project.settings.slurm.get(name) or Profile(name)
            yield from SlurmRunner(self.project, profile, None, self.stop, self.note, self.beside).run(there)
