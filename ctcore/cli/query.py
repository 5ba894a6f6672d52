"""`ct query`: SQL over what may be read."""

import sys
from collections.abc import Sequence

import click

from ctcore.cli.render import echo_json, excluded_options, json_option, opened, table
from ctcore.errors import Usage
from ctcore.words import Recorded, Words


@click.command()
@click.argument("sql", required=False)
@click.option("--tables", "lists", is_flag=True, help="The tables with their columns.")
@click.option("--seconds", default=300.0, show_default=True, help="How long the statement may take.")
@excluded_options
@json_option
@click.pass_context
def query(
    ctx: click.Context,
    sql: str | None,
    lists: bool,
    seconds: float,
    excluded: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    """Ask the cohort in SQL (SQLite's). Read-only, and of nobody who may not be used. `-` reads the statement."""
    from ctcore.disclosure import asked
    from ctcore.reading.database import Database
    from ctcore.reading.gate import Gate
    from ctcore.reading.views import Views

    if sql is None and not lists:
        raise Usage("which statement? `ct query 'SELECT …'`; `ct query --tables` lists tables and columns")
    project = opened(ctx)
    text = sys.stdin.read() if sql == "-" else sql or ""
    everybody = asked(project, excluded, reason, "query", Words(Recorded(text or "the tables")))
    with project.catalog.scan() as connection:
        gate = Gate.of(project, connection, everybody)
        views = Views(gate)
        if lists:
            rows = [(view.name, name, kind) for view in views.all.values() for name, kind in view.columns]
            of = (*project.steps.order, *project.settings.analyses)
            rows += [(f"wide_{name}".lower(), "…", "its results as columns") for name in of]
            _say(("table", "column", "type"), rows, as_json)
            return
        heads, found = Database(views, text, seconds).query(text)
        _say(heads, [tuple(cell.hex() if isinstance(cell, bytes) else cell for cell in row) for row in found], as_json)
        click.echo(gate.audit, err=True)


def _say(heads: Sequence[str], rows: Sequence[tuple[object, ...]], as_json: bool) -> None:
    if as_json:
        echo_json([dict(zip(heads, row, strict=True)) for row in rows])
    else:
        table(heads, rows)
