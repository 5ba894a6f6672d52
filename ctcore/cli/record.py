"""`ct record`: results of an analysis that was made elsewhere, of one entity or from a sheet."""

from pathlib import Path

import click

from ctcore.errors import Usage
from ctcore.intake.results import (
    BY_NAME,
    RecordedResults,
    ResultEntry,
    analysis_of,
    blank_columns,
    read_entered,
    values_of,
)
from ctcore.intake.results import record as write
from ctcore.sheet.options import Options
from ctcore.terminal.name_values import name_values
from ctcore.terminal.render import echo_json, json_option, open_project, table

SHOWN = 20


@click.command()
@click.argument("analysis")
@click.argument("what", nargs=-1, metavar="SHEET | ID COLUMN=VALUE...")
@click.option(
    "--run", "of_run", metavar="TEXT", default="", help="The run, if an entity has several results of this analysis."
)
@click.option("--reason", metavar="TEXT", default="", help="Why a result is corrected. Required for a correction.")
@click.option("--map", "names", metavar="THEIRS=OURS", multiple=True, help="Map a column name of the sheet to ours.")
@click.option("--ignore", metavar="COLUMN", multiple=True, help="Ignore this column of the sheet.")
@click.option("--blank", metavar="WORD", multiple=True, help="Read cells with this word, such as NA, as blank.")
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
    blank: tuple[str, ...],
    tab: str | None,
    as_json: bool,
) -> None:
    """Record results of an ANALYSIS of ct.toml: a sheet with one row per entity, or one entity's columns.

    ct writes all of it or nothing, and overwrites nothing. A correction is a new version, with a reason. It keeps the
    columns that it does not name; COLUMN= without a value, or a blank cell, removes one.
    """
    project = open_project(ctx)
    chosen = analysis_of(project, analysis)
    if len(what) == 1 and "=" not in what[0]:
        path = Path(what[0])
        options = project.settings.reading.also(Options(name_values("--map", names), ignore, tab, blank=blank))
        entered, source = read_entered(chosen, path, options), f"sheet {project.recorded(path)}"
    elif len(what) > 1 and "=" not in what[0]:
        if names or ignore or blank or tab:
            raise Usage("--map, --ignore, --blank and --tab are for sheets")
        cells = name_values(analysis, what[1:], blank=True)
        values, problems = values_of(chosen, cells)
        if problems:
            raise Usage(f"{what[0]}: " + "; ".join(problems))
        entered, source = [ResultEntry(what[0], values, blank=blank_columns(cells))], BY_NAME
    else:
        raise Usage(f"`ct record {analysis} SHEET`, or `ct record {analysis} ID COLUMN=VALUE…`")
    _say(write(project, chosen, entered, run=of_run, reason=reason, source=source), as_json)


def _say(found: RecordedResults, as_json: bool) -> None:
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
