"""`ct export`: what may be read, as files."""

import sys
from pathlib import Path

import click

from ctcore.cli.render import excluded_options, opened
from ctcore.errors import Usage
from ctcore.step import ENTITY_LEVELS, Level
from ctcore.words import Recorded, Words


@click.command()
@click.argument("place", metavar="PLACE", type=click.Path(path_type=Path))
@click.option("--table", "tables", metavar="NAME", multiple=True, help="Only this one; `ct query --tables` lists them.")
@click.option("--query", "sql", metavar="SQL", help="What a statement selects.")
@click.option("--wide", type=click.Choice(ENTITY_LEVELS), help="A level with its results as columns.")
@click.option("--columns", metavar="STEP.NAME", multiple=True, help="With --wide: only these, with * for any letters.")
@click.option("--format", "kind", type=click.Choice(("csv", "tsv", "json", "parquet", "xlsx")), help="If not by name.")
@click.option("--exact", is_flag=True, help="csv, tsv: text as it is, also what a spreadsheet would run as a formula.")
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
    """Write tables into PLACE: a .csv, .tsv, .json, .parquet or .xlsx, a folder for several, or - for stdout."""
    from ctcore.disclosure import asked
    from ctcore.reading.export import Asked, chosen_views, export
    from ctcore.reading.formats import Counted, write_text
    from ctcore.reading.gate import Gate
    from ctcore.reading.views import Views

    project = opened(ctx)
    wanted = Asked(tables, sql, wide, columns or ("*",), exact)
    everybody = asked(
        project, excluded, reason, "export", Words(Recorded(sql or ", ".join(tables) or wide or "all tables"))
    )
    with project.catalog.scan() as connection:
        gate = Gate.of(project, connection, everybody)
        views = Views(gate)
        if str(place) == "-":
            chosen = [Counted(view) for view in chosen_views(views, wanted)]
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
