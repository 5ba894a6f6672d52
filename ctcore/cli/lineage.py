"""`ct trace`, `ct impact` and `ct diff`: what something was made from, what was made from it, and what differs."""

import sys
from typing import TYPE_CHECKING

import click

from ctcore.cli.render import FOUND, echo_json, excluded_options, is_terminal, json_option, opened, say, size, table
from ctcore.disclosure import allow, asked, seen_by, why_hidden
from ctcore.disclosure import opened as folders_of
from ctcore.reasons import Node, Reason, name_of, short
from ctcore.veil import UNVEILED, Veil, veil

MANY = 30  # so many differences are shown at once
CODE_LINES = 60

if TYPE_CHECKING:
    from ctcore.impact import Affected, Impact, Row
    from ctcore.project import Project


@click.command()
@click.argument("what")
@json_option
@click.option("--mermaid", is_flag=True, help="Print a Mermaid flowchart.")
@click.option("--dot", is_flag=True, help="Print a graph for Graphviz.")
@click.option("--all", "everything", is_flag=True, help="Show every source, however many there are.")
@click.option("--code", is_flag=True, help="Print the code of each step instead, as it counts.")
@excluded_options
@click.pass_context
def trace(
    ctx: click.Context,
    what: str,
    as_json: bool,
    mermaid: bool,
    dot: bool,
    everything: bool,
    code: bool,
    excluded: bool,
    reason: str | None,
) -> None:
    """How WHAT was made, down to the sheet and the raw files: a node, a file (found by its bytes), or a digest."""
    from ctcore.cli import graphs, tree
    from ctcore.targets import find_target
    from ctcore.trace import as_data
    from ctcore.trace import trace as find

    if as_json + mermaid + dot + code > 1:
        raise click.UsageError("choose one of --json, --mermaid, --dot and --code")
    project = opened(ctx)
    found = find(project, find_target(project, what), files=as_json)
    of = {one.node for one in found.target.made.values()} | set(found.target.registered)
    allow(project, what, why_hidden(project, of, found.nodes), excluded, reason)
    seen = UNVEILED if excluded else seen_by(project, what)
    if as_json:
        echo_json(as_data(found, seen))
        return
    if mermaid or dot:
        click.echo((graphs.mermaid if mermaid else graphs.dot)(found, everything))
        return
    for note in found.target.notes:
        click.echo(seen.told(note), err=True)
    if code:
        _show_code(project, {one["code"]: one["step"] for one in found.recipes.values()})
        return
    tree.draw(found, everything)
    if found.roots:
        click.echo(f"in all: {tree.summary(found)}")
    _show_cycle(found.cycle)


def _show_code(project: "Project", codes: dict[str, str]) -> None:
    """The code of each step of a lineage."""
    from ctcore.code.kept import kept, lines

    for digest, name in codes.items():
        content = kept(project.store.root, digest)
        click.echo(f"== {name} {short(digest)}")
        said = lines(content) if content else ["it is not in store/.code: an earlier ct ran it, or the file is gone"]
        for line in veil(project).lines(said):
            say(line)


@click.command()
@click.argument("what")
@json_option
@click.option("--list", "every", is_flag=True, help="List every making, not only counts.")
@excluded_options
@click.pass_context
def impact(ctx: click.Context, what: str, as_json: bool, every: bool, excluded: bool, reason: str | None) -> None:
    """Everything that was built from WHAT: an ID, a file (found by its bytes), a reference, a node, or a digest.

    Also every past making, and what was purged.

    Exit code 3 where something has it inside although the sheet and the rules of today would leave it out.
    """
    from ctcore.impact import as_data
    from ctcore.impact import impact as find
    from ctcore.targets import find_target

    project = opened(ctx)
    found = find(project, find_target(project, what, every=True))
    seen = seen_by(project, what)
    if found.hidden and asked(project, excluded, reason, what, found.why_hidden):
        found, seen = found.named(), UNVEILED
    if as_json:
        echo_json(as_data(found, seen))
    else:
        _show_impact(found, every, seen)
    ctx.exit(FOUND if found.former else 0)


def _show_impact(found: "Impact", every: bool, seen: Veil) -> None:
    for note in found.target.notes:
        click.echo(seen.told(note), err=True)
    if not found.affected:
        click.echo(f"nothing was built from {found.target.text}", err=True)
    if every:
        columns = ("node", "making", "depth", "size", "current", "would not be inside today because")
        table(columns, [_affected(one, seen) for one in found.affected if not one.withheld])
    else:
        columns = ("level", "step", "artifacts", "size", "earlier makings", "their size", "not today", "purged")
        table(columns, [_row(row) for row in found.rows()])
    if found.hidden and every:
        words = seen.told(found.why_hidden)
        many = f"{len(found.hidden):,} making{'s are' if len(found.hidden) != 1 else ' is'} not named"
        click.echo(f"{many}: {words}; --excluded --reason TEXT names them, and that is recorded", err=True)
    for said in dict.fromkeys(found.belonging.values()):
        click.echo(seen.told(said), err=True)
    if found.former:
        one = next((one for one in found.former if not one.withheld), None)
        name = f"{len(found.former):,} artifact{'s' * (len(found.former) != 1)}"
        why = seen.told(one.former) if one and one.former else ""
        first = f", the first of them {name_of(one.making.node)} ({why})" if one else ""
        way = f"`ct impact --list {found.target.text}` names all"
        click.echo(f"{name} would not have {found.target.text} inside today{first}; {way}", err=True)
    _show_cycle(found.cycle)


def _row(row: "Row") -> tuple[object, ...]:
    now, before = _bytes(row.size), _bytes(row.earlier_size)
    return (row.level, row.step, row.nodes, now, row.earlier, before, row.former, row.purged)


def _bytes(number: int) -> str | int:
    """In words for people, as a number for programs."""
    return size(number) if is_terminal(sys.stdout) else number


def _affected(one: "Affected", seen: Veil) -> tuple[object, ...]:
    made = one.making
    now = one.purged or ("yes" if made.current else "no")
    former = seen.told(one.former) if one.former and made.current else ""
    return (name_of(made.node), f"#{made.id}", one.depth, _bytes(made.size), now, former)


def _show_cycle(cycle: list[Node]) -> None:
    if cycle:
        click.echo(f"the catalog is damaged: {' ← '.join(map(name_of, cycle))} goes round in a circle", err=True)


@click.command()
@click.argument("a")
@click.argument("b", required=False)
@json_option
@click.option("--all", "everything", is_flag=True, help="Show every difference, however many there are.")
@excluded_options
@click.pass_context
def diff(
    ctx: click.Context,
    a: str,
    b: str | None,
    as_json: bool,
    everything: bool,
    excluded: bool,
    reason: str | None,
) -> None:
    """In what the makings A and B differ, the first cause first: exit code 3 where they do.

    A making is a node (its current one), node@previous, node@12 (its number), node@3f2a (its digest), or a file.
    B may be @previous, @12 or @3f2a of A's node; without B, A is compared with its previous making.
    """
    from ctcore.differ import as_data, find_pair
    from ctcore.differ import diff as compare

    project = opened(ctx)
    found = compare(project, find_pair(project, a, b))
    allow(project, a, why_hidden(project, {found.a.node, found.b.node}, ()), excluded, reason)
    seen = UNVEILED if excluded else veil(project)
    found.causes, found.roots = ([seen.reason(one) for one in some] for some in (found.causes, found.roots))
    found.code = list(seen.lines(found.code))
    if as_json:
        pair = (found.a, found.b)
        echo_json(as_data(found, {one.id for one in pair} if excluded else folders_of(project, pair)))
        ctx.exit(FOUND if found else 0)
    say(found.sentence)
    rows = [("", cause.kind, str(cause.words)) for cause in found.causes]
    rows += [("root", root.kind, _rooted(root)) for root in found.roots]
    rows += [("file", "bytes", said) for said in found.files]
    rows += [("beside", name, said) for name, said in found.beside]
    few = rows if everything or len(rows) <= MANY else _few(rows)
    if rows:
        click.echo()
        table(("", "kind", "difference"), few)
    if len(rows) > len(few):
        click.echo(f"… and {len(rows) - len(few):,} more; --all shows them", err=True)
    for line in found.code if everything else found.code[:CODE_LINES]:
        say(line)
    if len(found.code) > CODE_LINES and not everything:
        click.echo(f"… and {len(found.code) - CODE_LINES:,} more lines of code; --all shows them", err=True)
    ctx.exit(FOUND if found else 0)


def _few(rows: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The first ones of each sort: direct causes, roots, files."""
    sorts = [[row for row in rows if row[0] == sort] for sort in ("", "root", "file", "beside")]
    return [row for some in sorts for row in some[: MANY // 3]]


def _rooted(root: Reason) -> str:
    return f"{root.words}, by way of {' ← '.join(map(name_of, root.path))}"
