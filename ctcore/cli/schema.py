"""`ct schema`: what ct.toml declares of patients, specimens and assays, and what the catalog says to it."""

from collections.abc import Sequence
from typing import Any

import click

from ctcore.catalog import result_triggers
from ctcore.catalog.schema_triggers import applied_schema, is_enforced
from ctcore.config import editor_schema
from ctcore.intake import analysis_changes
from ctcore.intake.schema_changes import (
    SHOWN,
    Contradiction,
    Edits,
    contradictions,
    differences,
    entities,
    without_names,
)
from ctcore.intake.schema_changes import apply as apply_schema
from ctcore.model.column import Column
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.project import Project
from ctcore.terminal.render import FOUND, echo_json, json_option, open_project, table


@click.group()
def schema() -> None:
    """Show, compare and apply the columns that ct.toml declares."""


@schema.command()
@json_option
@click.pass_context
def show(ctx: click.Context, as_json: bool) -> None:
    """List all declared columns."""
    declared = open_project(ctx).settings
    rows = [_row(level, column) for level in ENTITY_LEVELS for column in declared.levels[level].columns.values()]
    rows += [
        _row(f"analyses.{one.name}", column) for one in declared.analyses.values() for column in one.columns.values()
    ]
    columns = ("level", "column", "type", "required", "unique", "default", "enum", "unit", "range", "description")
    _print(columns, rows, as_json)


def _row(level: str, column: Column) -> tuple[Any, ...]:
    flags = ("yes" if column.required else "", "yes" if column.unique else "")
    ends = "" if column.range is None else f"{column.range[0]:g} to {column.range[1]:g}"
    enum = ", ".join(column.enum)
    return (level, column.name, column.type, *flags, column.default, enum, column.unit, ends, column.description)


@schema.command()
@json_option
@click.pass_context
def diff(ctx: click.Context, as_json: bool) -> None:
    """Compare ct.toml with the columns that the catalog enforces. Exit code 3 if they differ.

    The next `ct register`, or `ct schema apply`, applies differences that no value contradicts.
    """
    project = open_project(ctx)
    with project.catalog.read() as connection:
        said = differences(applied_schema(connection), project.settings.levels)
        said += analysis_changes.differences(result_triggers.applied_analyses(connection), project.settings.analyses)
        found = contradictions(entities(connection), project.settings.levels)
        found += analysis_changes.contradictions(connection, project.settings.analyses)
    found = without_names(project, found)
    if as_json:
        names = ("level", "column", "difference")
        echo_json(
            {"differences": [dict(zip(names, one, strict=True)) for one in said], "contradictions": _as_json(found)}
        )
    else:
        table(("level", "column", "difference"), said)
        _contradictions(found)
    ctx.exit(FOUND if said or found else 0)


@schema.command()
@json_option
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Check all values of the catalog against ct.toml, and that the database enforces it. Exit code 3 for findings."""
    project = open_project(ctx)
    found, enforced = _checked(project)
    found = without_names(project, found)
    if as_json:
        echo_json({"contradictions": _as_json(found), "enforced": enforced})
    else:
        _contradictions(found)
        said = "the database enforces ct.toml" if enforced else "the database does not enforce ct.toml yet"
        click.echo(said + ("" if enforced else ": `ct schema diff`, then `ct schema apply`"), err=True)
    ctx.exit(0 if enforced and not found else FOUND)


def _checked(project: Project) -> tuple[list[Contradiction], bool]:
    levels = project.settings.levels
    with project.catalog.read() as connection:
        found = contradictions(entities(connection), levels)
        found += analysis_changes.contradictions(connection, project.settings.analyses)
        old, others = applied_schema(connection), project.settings.analyses
        known = old is not None and not differences(old, levels) and result_triggers.is_applied(connection, others)
        return found, known and is_enforced(connection, levels) and result_triggers.is_enforced(connection, others)


@schema.command()
@click.option("--fill", is_flag=True, help="Fill blanks with the column's default.")
@click.option(
    "--convert", metavar="LEVEL.COLUMN", multiple=True, help="Convert this column's values to the declared type."
)
@click.option(
    "--drop", metavar="LEVEL.COLUMN", multiple=True, help="Remove the values of a column that is no longer declared."
)
@click.option("--dry-run", is_flag=True, help="Show what would change, and write nothing.")
@json_option
@click.pass_context
def apply(
    ctx: click.Context, fill: bool, convert: tuple[str, ...], drop: tuple[str, ...], dry_run: bool, as_json: bool
) -> None:
    """Make the catalog enforce ct.toml. If values contradict it, ct lists every row and changes nothing.

    Values change only if an option asks for it. Steps that read a changed value become stale.
    """
    project = open_project(ctx)
    analysis_changes.apply(project, dry_run=True)  # refuses before anything is written
    said = apply_schema(project, Edits(fill, frozenset(convert), frozenset(drop)), dry_run=dry_run)
    said += analysis_changes.apply(project, dry_run=dry_run)
    _print(("what", "change"), said, as_json)
    if dry_run:
        click.echo("nothing was written (--dry-run)", err=True)
    elif not said:
        click.echo("the catalog enforces ct.toml already", err=True)


@schema.command()
def editor() -> None:
    """Print the JSON schema of ct.toml, with which editors complete and check it.

    `ct init` writes it beside ct.toml, as ct.schema.json; the first line of ct.toml names it.
    """
    click.echo(editor_schema.text(), nl=False)


def _print(columns: Sequence[str], rows: Sequence[Sequence[Any]], as_json: bool) -> None:
    if as_json:
        echo_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        table(columns, rows)


def _as_json(found: list[Contradiction]) -> list[dict[str, Any]]:
    return [
        {
            "level": one.level,
            "column": one.column,
            "problem": one.asked,
            "way": one.way,
            "entities": dict(zip(one.ids, one.values, strict=True)),
        }
        for one in found
    ]


def _contradictions(found: list[Contradiction]) -> None:
    for one in found:
        click.echo(f"{one.said}; {one.way}", err=True)
        for name, value in list(zip(one.ids, one.values, strict=True))[:SHOWN]:
            click.echo(f"  {name}" + ("" if value is None else f"  {value!r:.80}"), err=True)
        if len(one.ids) > SHOWN:
            click.echo(f"  … and {len(one.ids) - SHOWN} more (--json)", err=True)
