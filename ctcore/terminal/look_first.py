"""The look at the disk before a command gives verdicts."""

import click

from ctcore.integrity.look import AT_ONCE, Look, look_around
from ctcore.project import Project


def look_first(project: Project, most: int | None = AT_ONCE) -> Look:
    """Look at everything on disk, and report differences from the record on stderr."""
    found = look_around(project, most=most)
    for said in found.lines():
        click.echo(said, err=True)
    return found
