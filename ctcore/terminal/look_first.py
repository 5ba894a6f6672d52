"""The look at the disk before a command gives verdicts, or makes something."""

import click

from ctcore.errors import ProjectError
from ctcore.execution.ledger import refuse_without_store
from ctcore.execution.runners import chosen_profile
from ctcore.execution.sandbox import refusal
from ctcore.intake.raw_files import check_references
from ctcore.integrity.look import AT_ONCE, Look, look_around
from ctcore.project import Project


def look_first(project: Project, most: int | None = AT_ONCE) -> Look:
    """Look at everything on disk, and report differences from the record on stderr."""
    found = look_around(project, most=most)
    for said in found.lines():
        click.echo(said, err=True)
    return found


def look_before_run(project: Project) -> int:
    """Refuse a run that cannot be, and read all that looks touched. How many problems of files there are."""
    if chosen_profile(project) is None and project.settings.run.sandbox == "strict" and (said := refusal()) is not None:
        raise ProjectError(said)
    check_references(project)
    refuse_without_store(project)
    project.store.ensure()
    return len(look_first(project, most=None).problems)
