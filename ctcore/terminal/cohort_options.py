"""`--cohort`, `--pairing` and `--complete-only`: the same options on every command that is about nodes."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from ctcore.project import Project

F = TypeVar("F", bound=Callable[..., Any])


def narrowing_options(command: F) -> F:
    """Adds the three options; `narrowing_of` takes them from the arguments."""
    for option in (
        click.option("--complete-only", is_flag=True, help="Only entities that are complete in the pairing."),
        click.option("--pairing", metavar="NAME", help="Only entities with at least one part of [pairings.NAME]."),
        click.option("--cohort", metavar="NAME", help="Only members of this cohort, and the cohort itself."),
    ):
        command = option(command)
    return command


def filter_selected(
    project: Project, keys: Mapping[str, set[str]] | None, cohort: str | None, pairing: str | None, only: bool
) -> Mapping[str, set[str]] | None:
    """Narrow these nodes, and report on stderr how many were left out."""
    if not (cohort or pairing or only):
        return keys
    from ctcore.cohorts.filters import NodeFilter, filter_nodes  # most commands never come here

    narrowing = NodeFilter(cohort, pairing, only)
    found = filter_nodes(project, narrowing, keys)
    for line in found.notes:
        click.echo(line, err=True)
    return found.keys
