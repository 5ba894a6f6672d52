"""`ct impact`: what was made from something."""

import sys
from typing import TYPE_CHECKING

import click

from ctcore.governance.masking import UNMASKED, Mask, mask_for
from ctcore.model.levels import count_text
from ctcore.model.node import name_of
from ctcore.query.disclosure import shows_excluded
from ctcore.terminal.damage import show_cycle
from ctcore.terminal.render import (
    FOUND,
    echo_json,
    excluded_options,
    is_terminal,
    json_option,
    open_project,
    size,
    table,
)

if TYPE_CHECKING:
    from ctcore.lineage.impact import AffectedMaking, Impact, ImpactRow


@click.command()
@click.argument("what")
@json_option
@click.option("--list", "every", is_flag=True, help="List all makings, not only counts.")
@excluded_options
@click.pass_context
def impact(ctx: click.Context, what: str, as_json: bool, every: bool, excluded: bool, reason: str | None) -> None:
    """List everything built from WHAT: an ID, a file (found by its bytes), a reference, a node, or a digest.

    This includes earlier makings and purged results.

    Exit code 3 if a result contains WHAT although today's sheet and rules would leave it out.
    """
    from ctcore.lineage.impact import as_data
    from ctcore.lineage.impact import impact as find
    from ctcore.lineage.target import find_target

    project = open_project(ctx)
    found = find(project, find_target(project, what, every=True))
    seen = mask_for(project, what)
    if found.hidden and shows_excluded(project, excluded, reason, what, found.why_hidden):
        found, seen = found.unmasked(), UNMASKED
    if as_json:
        echo_json(as_data(found, seen))
    else:
        _show_impact(found, every, seen)
    ctx.exit(FOUND if found.former else 0)


def _show_impact(found: "Impact", every: bool, seen: Mask) -> None:
    for note in found.target.notes:
        click.echo(seen.mask_words(note), err=True)
    if not found.affected:
        click.echo(f"nothing was built from {found.target.text}", err=True)
    if every:
        columns = ("node", "making", "depth", "size", "current", "would not be inside today because")
        table(columns, [_affected(one, seen) for one in found.affected if not one.withheld])
    else:
        columns = ("level", "step", "artifacts", "size", "earlier makings", "their size", "not today", "purged")
        table(columns, [_row(row) for row in found.rows()])
    if found.hidden and every:
        words = seen.mask_words(found.why_hidden)
        many = f"{len(found.hidden):,} making{'s are' if len(found.hidden) != 1 else ' is'} not named"
        click.echo(f"{many}: {words}; --excluded --reason TEXT names them, and that is recorded", err=True)
    for said in dict.fromkeys(found.past_parents.values()):
        click.echo(seen.mask_words(said), err=True)
    if found.former:
        one = next((one for one in found.former if not one.withheld), None)
        name = f"{len(found.former):,} artifact{'s' * (len(found.former) != 1)}"
        why = seen.mask_words(one.former) if one and one.former else ""
        first = f", the first of them {name_of(one.making.node)} ({why})" if one else ""
        way = f"`ct impact --list {found.target.text}` names all"
        click.echo(f"{name} would not have {found.target.text} inside today{first}; {way}", err=True)
    if found.unsure:
        many = count_text(found.unsure, "making")
        click.echo(
            f"{many} more may contain it: something of what they were made from is lost; `ct run` tells", err=True
        )
    show_cycle(found.cycle)


def _row(row: "ImpactRow") -> tuple[object, ...]:
    now, before = _bytes(row.size), _bytes(row.earlier_size)
    return (row.level, row.step, row.nodes, now, row.earlier, before, row.former, row.purged)


def _bytes(number: int) -> str | int:
    """In words for people, as a number for programs."""
    return size(number) if is_terminal(sys.stdout) else number


def _affected(one: "AffectedMaking", seen: Mask) -> tuple[object, ...]:
    made = one.making
    now = one.purged or ("yes" if made.current else "no")
    former = seen.mask_words(one.former) if one.former and made.current else ""
    return (name_of(made.node), f"#{made.id}", one.depth, _bytes(made.size), now, former)
