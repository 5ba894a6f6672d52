"""`ct plan`: what would run, in order, why, and at what cost. Changes nothing."""

from pathlib import Path

import click

from ctcore.cohorts.filters import NodeFilter
from ctcore.cohorts.selection import HELP
from ctcore.planning.plan import plan as planned
from ctcore.planning.plan_file import as_json as in_json
from ctcore.planning.plan_file import save
from ctcore.planning.plan_text import COLUMNS, REASONS, left_rows, reason_rows, rows, summary
from ctcore.planning.requests import hold_reasons
from ctcore.terminal.cohort_options import narrowing_options
from ctcore.terminal.look_first import look_first
from ctcore.terminal.place import Place
from ctcore.terminal.render import FOUND, echo_json, json_option, open_project, table


@click.command()
@click.argument("what", nargs=-1, metavar="[STEP|STEP/PARTITION]...")
@click.option("--select", "-s", "select", multiple=True, metavar="WHAT", help=f"Of these: {HELP}.")
@click.option("--profile", metavar="NAME", help="Where to run: local, or a [slurm.NAME] of ct.toml.")
@click.option("--save", "file", type=Place(path_type=Path), help="Write the plan to a file for `ct run --plan`.")
@narrowing_options
@json_option
@click.pass_context
def plan(
    ctx: click.Context,
    what: tuple[str, ...],
    select: tuple[str, ...],
    profile: str | None,
    file: Path | None,
    cohort: str | None,
    pairing: str | None,
    complete_only: bool,
    as_json: bool,
) -> None:
    """Show what `ct run` would make, in order, why, and at what cost. Exit code 3 if there is anything to make.

    The upper bound counts everything downstream. The expected cost uses history: how often a step gave other content.
    """
    project = open_project(ctx)
    sight = look_first(project)
    found = planned(project, (*what, *select), profile, NodeFilter(cohort, pairing, complete_only))
    for said in found.notes:
        click.echo(said, err=True)
    if file is not None:
        save(project, found, file)
    held = hold_reasons(project, (verdict for one in found.steps for verdict in (*one.run, *one.reuse)))
    if as_json:
        echo_json({**in_json(found), "held_back": held, "looked": sight.as_json()})
    else:
        _tables(("what would run, in order", COLUMNS, rows(found)), ("why", REASONS, reason_rows(found)))
        _tables(("what would not run", REASONS, left_rows(found)))
        click.echo(summary(found), err=True)
        for said in held:
            click.echo(f"the staleness sensor: {said}", err=True)
    if file is not None:
        click.echo(f"saved; `ct run --plan {file}` runs exactly this", err=True)
    ctx.exit(FOUND if found.nodes or found.reused or not sight.is_clear else 0)


def _tables(*some: tuple[str, tuple[str, ...], list[tuple[str, ...]]]) -> None:
    for title, columns, listed in some:
        if listed:
            table(columns, listed, title=title)
            click.echo()
