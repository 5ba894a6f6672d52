"""`ct heatmap`: entities by steps, as a picture."""

from pathlib import Path

import click

from ctcore.terminal.gated_file import write_gated
from ctcore.terminal.place import Place
from ctcore.terminal.render import excluded_options


@click.command()
@click.argument("file", type=Place(path_type=Path, dir_okay=False))
@excluded_options
@click.pass_context
def heatmap(ctx: click.Context, file: Path, excluded: bool, reason: str | None) -> None:
    """Draw entities by steps, coloured by state, to FILE (.png, .svg or .pdf)."""
    from ctcore.reports.heatmap import heatmap

    write_gated(ctx, file, (excluded, reason), "heatmap", heatmap)
