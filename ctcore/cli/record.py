"""`ct record`: results of an analysis that was made elsewhere, of one entity or from a sheet."""

from pathlib import Path

import click

from ctcore.cli.cohort import pairs
from ctcore.cli.render import echo_json, json_option, opened, table
from ctcore.errors import Usage
from ctcore.recording import BY_NAME, Entered, Recorded, analysis_of, blank, read_entered, values_of
from ctcore.recording import record as write

SHOWN = 20


@click.command()
@click.argument("analysis")
@click.argument("what", nargs=-1, metavar="SHEET | ID COLUMN=VALUE...")
@click.option("--run", "of_run", metavar="TEXT", default="", help="Which of several results of this analysis it is.")
@click.option("--reason", metavar="TEXT", default="", help="Why a result is corrected: it becomes another version.")
@click.option("--map", "names", metavar="THEIRS=OURS", multiple=True, help="A column has another name here.")
@click.option("--ignore", metavar="COLUMN", multiple=True, help="Pass over this column of the sheet.")
@click.option("--tab", metavar="NAME", help="The tab of an .xlsx workbook.")
@json_option
@click.pass_context
def record(
    ctx: click.Context,
    analysis: str,
    what: tuple[str, ...],
    of_run: str,
    reason: str,
    names: tuple[str, ...],
    ignore: tuple[str, ...],
    tab: str | None,
    as_json: bool,
) -> None:
    """Record results of an ANALYSIS of ct.toml: a sheet with one row an entity, or one entity's columns.

    All of it is written, or nothing. Nothing is overwritten: what differs is another version, with a reason; it keeps
    what it does not name, and COLUMN= without a value, or a blank cell, takes it out.
    """
    project = opened(ctx)
    chosen = analysis_of(project, analysis)
    if len(what) == 1 and "=" not in what[0]:
        path = Path(what[0])
        options = project.settings.reading.also(pairs("--map", names), ignore, tab)
        entered, source = read_entered(chosen, path, options), f"sheet {project.recorded(path)}"
    elif len(what) > 1 and "=" not in what[0]:
        if names or ignore or tab:
            raise Usage("--map, --ignore and --tab are for sheets")
        cells = pairs(analysis, what[1:], blank=True)
        values, problems = values_of(chosen, cells)
        if problems:
            raise Usage(f"{what[0]}: " + "; ".join(problems))
        entered, source = [Entered(what[0], values, blank=blank(cells))], BY_NAME
    else:
        raise Usage(f"`ct record {analysis} SHEET`, or `ct record {analysis} ID COLUMN=VALUE…`")
    _say(write(project, chosen, entered, run=of_run, reason=reason, source=source), as_json)


def _say(found: Recorded, as_json: bool) -> None:
    if as_json:
        listed = [{"entity": who, "version": number} for who, number in found.written]
        echo_json({"recorded": listed, "same": found.same})
        return
    later = [(who, number) for who, number in found.written if number > 1]
    if later:
        table(("entity", "version"), later[:SHOWN])
    if len(later) > SHOWN:
        click.echo(f"… and {len(later) - SHOWN} more (--json)", err=True)
    same = f"; {found.same} there already, the same" if found.same else ""
    click.echo(f"recorded {len(found.written)}{same}", err=True)
