"""`ct plan`: what would run, in order, why, and at what cost. Changes nothing."""

from pathlib import Path

import click

from ctcore.asking import held_back
from ctcore.cli.looks import looked
from ctcore.cli.narrowing import narrowing_options
from ctcore.cli.render import FOUND, echo_json, json_option, opened, table
from ctcore.narrow import Narrowing
from ctcore.plan import plan as planned
from ctcore.planfile import as_json as in_json
from ctcore.planfile import save
from ctcore.plantext import COLUMNS, REASONS, left_rows, reason_rows, rows, summary
from ctcore.select import HELP


@click.command()
@click.argument("what", nargs=-1, metavar="[STEP|STEP/PARTITION]...")
@click.option("--select", "-s", "select", multiple=True, metavar="WHAT", help=f"Of these: {HELP}.")
@click.option("--profile", metavar="NAME", help="Where it would run: local, or a [slurm.NAME] of ct.toml.")
@click.option("--save", "file", type=click.Path(path_type=Path), help="Write it, for `ct run --plan FILE`.")
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
    """What `ct run` would make, in order, why, and at what cost. Exit code 3 where there is something.

    At most: all downstream of what runs. Expected: what the past says, by how often a step gave other content.
    """
    project = opened(ctx)
    sight = looked(project)
    found = planned(project, (*what, *select), profile, Narrowing(cohort, pairing, complete_only))
    for said in found.said:
        click.echo(said, err=True)
    if file is not None:
        save(project, found, file)
    held = held_back(project, (verdict for one in found.steps for verdict in (*one.run, *one.reuse)))
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
