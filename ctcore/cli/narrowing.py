"""`--cohort`, `--pairing` and `--complete-only`: the same options on every command that is about nodes."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from ctcore.project import Project

F = TypeVar("F", bound=Callable[..., Any])


def narrowing_options(command: F) -> F:
    """Adds the three options; `narrowing_of` takes them from the arguments."""
    for option in (
        click.option("--complete-only", is_flag=True, help="Only what is complete in the pairing."),
        click.option("--pairing", metavar="NAME", help="Only who has any of what belongs together in [pairings.NAME]."),
        click.option("--cohort", metavar="NAME", help="Only members of this cohort, and the cohort itself."),
    ):
        command = option(command)
    return command


def narrowed(
    project: Project, keys: Mapping[str, set[str]] | None, cohort: str | None, pairing: str | None, only: bool
) -> Mapping[str, set[str]] | None:
    """These nodes, narrowed; what is left out is said on stderr."""
    if not (cohort or pairing or only):
        return keys
    from ctcore.narrow import Narrowing, narrow  # most commands never come here

    narrowing = Narrowing(cohort, pairing, only)
    found = narrow(project, narrowing, keys)
    for line in found.said:
        click.echo(line, err=True)
    return found.keys
