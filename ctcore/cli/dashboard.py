"""`ct dashboard`: the cohort on a page."""

from pathlib import Path

import click

from ctcore.query.readable import Gate
from ctcore.staleness.verdicts import Verdicts
from ctcore.terminal.gated_file import write_gated
from ctcore.terminal.place import Place
from ctcore.terminal.render import excluded_options

ROWS = 400


@click.command()
@click.argument("file", default="dashboard.html", type=Place(path_type=Path, dir_okay=False))
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    default=ROWS,
    show_default=True,
    help="How many entities of a level to list one by one.",
)
@excluded_options
@click.pass_context
def dashboard(ctx: click.Context, file: Path, rows: int, excluded: bool, reason: str | None) -> None:
    """Write the dashboard to FILE (dashboard.html): one page that needs no network and no JavaScript."""
    from ctcore.reports.dashboard import dashboard

    def draw(gate: Gate, verdicts: Verdicts, path: Path) -> None:
        path.write_text(dashboard(gate, verdicts, max(0, rows)), encoding="utf-8", errors="replace")

    write_gated(ctx, file, (excluded, reason), "dashboard", draw)
