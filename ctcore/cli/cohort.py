"""`ct register` and `ct status`: who is in the cohort, and how far everything is."""

from collections.abc import Sequence
from pathlib import Path

import click

from ctcore.cli.render import FOUND, MARK, Reading, echo_json, json_option, opened, table
from ctcore.errors import Usage
from ctcore.explain import Matrix, matrix
from ctcore.files import check_references, look
from ctcore.register import Allowed, Changes, known_sheet
from ctcore.register import register as register_sheet
from ctcore.step import ENTITY_LEVELS

SHOWN = 20


@click.command()
@click.argument("sheet", required=False, type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would change, and write nothing.")
@click.option("--reparent", metavar="ID", multiple=True, help="Move this specimen or assay as the sheet says.")
@click.option("--update", metavar="LEVEL.COLUMN", multiple=True, help="Replace known values of this column.")
@json_option
@click.pass_context
def register(
    ctx: click.Context,
    sheet: Path | None,
    dry_run: bool,
    reparent: tuple[str, ...],
    update: tuple[str, ...],
    as_json: bool,
) -> None:
    """Register a sheet (csv or tsv, one row an assay). All of it is written, or nothing."""
    project = opened(ctx)
    path = sheet or known_sheet(project)
    if path is None:
        raise Usage('which sheet? `ct register SHEET`, or say [project] sheet = "…" in ct.toml')
    if not dry_run:
        check_references(project)
    allowed = Allowed(frozenset(reparent), frozenset(update))
    with Reading("reading raw files") as on_bytes:
        changes = register_sheet(project, path, allowed, dry_run=dry_run, on_bytes=on_bytes)
        if not dry_run:
            look(project, on_bytes)
    if as_json:
        echo_json(
            {
                "dry_run": dry_run,
                "new": changes.new,
                "changed": changes.changed,
                "unchanged": changes.unchanged,
            }
        )
    else:
        _say(changes, dry_run)
    if not dry_run and any(changes.new.values()):
        from ctcore.dagster_home import launch

        launch(project, "sync")


def _say(changes: Changes, dry_run: bool) -> None:
    rows = [
        (level, len(changes.new[level]), len(changes.changed[level]), changes.unchanged[level])
        for level in ENTITY_LEVELS
    ]
    table(("level", "new", "changed", "unchanged"), rows)
    for level in ENTITY_LEVELS:
        for name, said in list(changes.changed[level].items())[:SHOWN]:
            click.echo(f"{level} {name}: {'; '.join(said)}", err=True)
    if dry_run:
        click.echo("nothing was written (--dry-run)", err=True)


@click.command()
@click.option("--all", "everything", is_flag=True, help="Show every entity, not only the first 40 of a level.")
@json_option
@click.pass_context
def status(ctx: click.Context, everything: bool, as_json: bool) -> None:
    """The completeness matrix: entities by steps. Exit code 3 where something is not fresh."""
    project = opened(ctx)
    tables = matrix(project, None if everything or as_json else 40)
    if as_json:
        echo_json(
            {
                one.level: {
                    "steps": one.steps,
                    "counts": one.counts,
                    "accepted": {name: sorted(some) for name, some in one.accepted.items() if some},
                    "entities": {who: dict(zip(one.steps, states, strict=True)) for _, who, states in one.rows},
                }
                for one in tables
            }
        )
    else:
        for one in tables:
            _matrix(one)
    open_ = sum(
        n
        for one in tables
        for counts in one.counts.values()
        for state, n in counts.items()
        if state not in ("fresh", "excluded")
    )
    ctx.exit(FOUND if open_ else 0)


def _matrix(one: Matrix) -> None:
    above = {"assay": "specimen", "specimen": "patient"}.get(one.level)
    columns = [*([above] if above else []), one.level, *one.steps]
    rows = [[*([parent] if above else []), who, *_marked(one, who, states)] for parent, who, states in one.rows]
    total = [_share(one.counts[name]) for name in one.steps]
    rows.append([*([""] if above else []), "fresh", *total])
    table(columns, rows, title=f"{one.level}s")
    if any(one.accepted.values()):
        click.echo(f"{MARK}: fresh because somebody accepted what differs; `ct why NODE` says who and why", err=True)
    if one.hidden:
        click.echo(f"… and {one.hidden} more {one.level}s (--all)", err=True)
    click.echo()


def _marked(one: Matrix, who: str, states: Sequence[str]) -> list[str]:
    return [
        f"{state}{MARK}" if who in one.accepted[name] else state for name, state in zip(one.steps, states, strict=True)
    ]


def _share(counts: dict[str, int]) -> str:
    return f"{counts['fresh']}/{sum(n for state, n in counts.items() if state != 'excluded')}"
