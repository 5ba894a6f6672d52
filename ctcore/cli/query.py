"""`ct query`: SQL over what may be read."""

import sys
from collections.abc import Sequence

import click

from ctcore.errors import Usage
from ctcore.model.masked_text import QuotedText, Words
from ctcore.terminal.render import echo_json, excluded_options, json_option, open_project, table


@click.command()
@click.argument("sql", required=False)
@click.option("--tables", "lists", is_flag=True, help="List the tables and their columns.")
@click.option(
    "--seconds",
    default=300.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Time limit of the statement.",
)
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
    """Query the cohort in SQL (SQLite's dialect). Read-only, without excluded people. `-` reads the statement from
    stdin.
    """
    from ctcore.query.disclosure import shows_excluded
    from ctcore.query.readable import Gate
    from ctcore.query.sql import Database
    from ctcore.query.views import Views

    if sql is None and not lists:
        raise Usage("which statement? `ct query 'SELECT …'`; `ct query --tables` lists tables and columns")
    project = open_project(ctx)
    text = sys.stdin.read() if sql == "-" else sql or ""
    everybody = shows_excluded(project, excluded, reason, "query", Words(QuotedText(text or "the tables")))
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
