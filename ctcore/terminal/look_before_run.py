"""Whether a run can be, and the look at the disk before it."""

from ctcore.errors import ProjectError
from ctcore.execution.runners import chosen_profile
from ctcore.execution.sandbox import refusal
from ctcore.intake.raw_files import check_references
from ctcore.project import Project
from ctcore.projects.missing_store import refuse_without_store
from ctcore.terminal.look_first import look_first


def look_before_run(project: Project) -> int:
    """Refuse a run that cannot be, and read all that looks touched. How many problems of files there are."""
    if chosen_profile(project) is None and project.settings.run.sandbox == "strict" and (said := refusal()) is not None:
        raise ProjectError(said)
    check_references(project)
    refuse_without_store(project)
    project.store.ensure()
    return len(look_first(project, most=None).problems)
