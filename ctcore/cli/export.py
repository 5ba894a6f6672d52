"""`ct export`: what may be read, as files."""

import sys
from pathlib import Path

import click

from ctcore.errors import Usage
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.model.masked_text import QuotedText, Words
from ctcore.terminal.place import Place
from ctcore.terminal.render import excluded_options, open_project


@click.command()
@click.argument("place", metavar="PLACE", type=Place(path_type=Path))
@click.option(
    "--table", "tables", metavar="NAME", multiple=True, help="Only this table; `ct query --tables` lists them."
)
@click.option("--query", "sql", metavar="SQL", help="The result of this statement.")
@click.option(
    "--wide", type=click.Choice(ENTITY_LEVELS), help="One row per entity of this level, with its results as columns."
)
@click.option(
    "--columns", metavar="STEP.NAME", multiple=True, help="With --wide: only these columns; * matches any letters."
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(("csv", "tsv", "json", "parquet", "xlsx")),
    help="The format, if the file name does not say it.",
)
@click.option(
    "--exact", is_flag=True, help="csv, tsv: keep text unchanged, even if a spreadsheet would run it as a formula."
)
@excluded_options
@click.pass_context
def export(
    ctx: click.Context,
    place: Path,
    tables: tuple[str, ...],
    sql: str | None,
    wide: Level | None,
    columns: tuple[str, ...],
    kind: str | None,
    exact: bool,
    excluded: bool,
    reason: str | None,
) -> None:
    """Write tables to PLACE: a .csv, .tsv, .json, .parquet or .xlsx file, a folder for several files, or - for
    stdout.
    """
    from ctcore.query.disclosure import shows_excluded
    from ctcore.query.export import ExportRequest, chosen_views, export
    from ctcore.query.formats import CountedTable, write_text
    from ctcore.query.readable import Gate
    from ctcore.query.views import Views

    project = open_project(ctx)
    wanted = ExportRequest(tables, sql, wide, columns or ("*",), exact)
    everybody = shows_excluded(
        project, excluded, reason, "export", Words(QuotedText(sql or ", ".join(tables) or wide or "all tables"))
    )
    with project.catalog.scan() as connection:
        gate = Gate.of(project, connection, everybody)
        views = Views(gate)
        if str(place) == "-":
            chosen = [CountedTable(view) for view in chosen_views(views, wanted)]
            if kind in ("parquet", "xlsx") or (len(chosen) > 1 and kind != "json"):
                raise Usage("stdout takes one --table as csv, tsv or json, or all as json")
            write_text(kind or "tsv", sys.stdout, chosen, exact)
            done = [(place, one.name, one.count) for one in chosen]
        else:
            done = export(views, place, wanted, kind)
        audit = gate.audit
    for path, name, rows in done:
        click.echo(f"{path}: {name}, {rows} row{'s' * (rows != 1)}", err=True)
    click.echo(audit, err=True)
