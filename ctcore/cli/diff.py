"""`ct diff`: in what two makings differ, and where the difference began."""

import click

from ctcore.governance.masking import UNMASKED
from ctcore.model.node import name_of
from ctcore.model.reasons import Reason
from ctcore.query.disclosure import allow, mask_for_makings, why_hidden
from ctcore.query.disclosure import readable_makings as open_ones
from ctcore.terminal.render import FOUND, echo_json, excluded_options, json_option, open_project, say, table

MANY = 30  # so many differences are shown at once
CODE_LINES = 60


@click.command()
@click.argument("a")
@click.argument("b", required=False)
@json_option
@click.option("--all", "everything", is_flag=True, help="Show all differences.")
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
    """Compare the makings A and B; the first cause comes first. Exit code 3 if they differ.

    A making is a node (its current one), node@previous, node@12 (its number), node@3f2a (its digest), or a file. B may
    be @previous, @12 or @3f2a of A's node. Without B, A is compared with its previous making.
    """
    from ctcore.lineage.diff import as_data, find_pair
    from ctcore.lineage.diff import diff as compare

    project = open_project(ctx)
    found = compare(project, find_pair(project, a, b))
    pair = (found.a, found.b)
    now = [one for one in pair if one.current]  # of a former one it is told without names that it was otherwise
    allow(project, a, why_hidden(project, now, found.lineage, ()), excluded, reason)
    readable = {one.id for one in pair} if excluded else open_ones(project, pair, found.lineage)
    seen = UNMASKED if excluded else mask_for_makings(project, pair)
    found.a, found.b = (one._replace(reason=seen.text(one.reason)) for one in pair)
    if len(readable) < len({one.id for one in pair}):
        found.files = {name: f"{name} differs" for name in found.files}
    found.causes, found.roots = ([seen.reason(one) for one in some] for some in (found.causes, found.roots))
    found.code = list(seen.lines(found.code))
    if as_json:
        echo_json(as_data(found, readable))
        ctx.exit(FOUND if found else 0)
    say(found.sentence)
    rows = [("", cause.kind, str(cause.words)) for cause in found.causes]
    rows += [("root", root.kind, _rooted(root)) for root in found.roots]
    rows += [("file", "bytes", said) for said in found.files.values()]
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
