"""A file that shows people: those who may be used, unless it is asked for on record."""

from collections.abc import Callable
from pathlib import Path

import click

from ctcore.intake.own_files import refuse_own_file
from ctcore.query.disclosure import shows_excluded
from ctcore.query.export import replace_when_whole
from ctcore.query.readable import Gate
from ctcore.staleness.verdicts import Verdicts, evaluate
from ctcore.terminal.render import open_project


def write_gated(
    ctx: click.Context,
    file: Path,
    excluded: tuple[bool, str | None],
    what: str,
    draw: Callable[[Gate, Verdicts, Path], None],
) -> None:
    """Have `draw` write the file, and say who is left out. `excluded`: the values of `--excluded` and `--reason`."""
    project = open_project(ctx)
    everybody = shows_excluded(project, *excluded, what)
    verdicts = evaluate(project)
    refuse_own_file(project, file)
    with project.catalog.scan() as connection, replace_when_whole(file) as part:
        gate = Gate.of(project, connection, everybody)
        draw(gate, verdicts, part)
        audit = gate.audit
    click.echo(f"{file}\n{audit}", err=True)
