"""`ct dashboard` and `ct heatmap`: the cohort on a page and in a picture."""

from collections.abc import Callable
from pathlib import Path

import click

from ctcore.cli.render import excluded_options, opened
from ctcore.disclosure import asked
from ctcore.reading.export import replacing
from ctcore.reading.gate import Gate
from ctcore.staleness import Verdicts, evaluate

ROWS = 400


@click.command()
@click.argument("file", default="dashboard.html", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--rows", default=ROWS, show_default=True, help="Entities of a level that are shown one by one.")
@excluded_options
@click.pass_context
def dashboard(ctx: click.Context, file: Path, rows: int, excluded: bool, reason: str | None) -> None:
    """Write FILE (dashboard.html): one page that needs no network and no JavaScript."""
    from ctcore.reading.dashboard import dashboard

    def draw(gate: Gate, verdicts: Verdicts, path: Path) -> None:
        path.write_text(dashboard(gate, verdicts, max(0, rows)), encoding="utf-8", errors="replace")

    _drawn(ctx, file, (excluded, reason), "dashboard", draw)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@excluded_options
@click.pass_context
def heatmap(ctx: click.Context, file: Path, excluded: bool, reason: str | None) -> None:
    """Draw FILE (.png, .svg or .pdf): entities by steps, coloured by state."""
    from ctcore.reading.heatmap import heatmap

    _drawn(ctx, file, (excluded, reason), "heatmap", heatmap)


def _drawn(
    ctx: click.Context,
    file: Path,
    excluded: tuple[bool, str | None],
    what: str,
    draw: Callable[[Gate, Verdicts, Path], None],
) -> None:
    project = opened(ctx)
    everybody = asked(project, *excluded, what)
    verdicts = evaluate(project)
    with project.catalog.scan() as connection, replacing(file) as part:
        gate = Gate.of(project, connection, everybody)
        draw(gate, verdicts, part)
        audit = gate.audit
    click.echo(f"{file}\n{audit}", err=True)
