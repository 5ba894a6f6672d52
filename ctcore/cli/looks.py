"""What a command that asks for verdicts sees on disk first, and says of it."""

import click

from ctcore.looking import Sight, look_around
from ctcore.project import Project


def looked(project: Project) -> Sight:
    """Look at everything; what is otherwise than on record is said on stderr."""
    found = look_around(project)
    for said in found.lines():
        click.echo(said, err=True)
    return found
