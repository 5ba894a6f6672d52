"""`ct accept`: a person says by name that a difference does not matter."""

from collections import Counter
from collections.abc import Mapping, Sequence

import click

from ctcore.cohorts.lookup import find_nodes
from ctcore.cohorts.selection import HELP as SELECTION
from ctcore.cohorts.selection import select_nodes
from ctcore.errors import Usage
from ctcore.governance.masking import mask_of
from ctcore.project import Project
from ctcore.staleness.accept import accept as accept_reasons
from ctcore.staleness.accept import checked_kinds, checked_reason, current_acceptances, propose, undo, undoable
from ctcore.staleness.summary import group_reasons
from ctcore.terminal.look_first import look_first
from ctcore.terminal.render import echo_json, json_option, open_project, table
from ctcore.terminal.verdict_text import in_words


@click.command()
@click.argument("nodes", nargs=-1, metavar="NODE...")
@click.option("--select", "select_", metavar="SELECTION", multiple=True, help=f"Also these: {SELECTION}.")
@click.option("--reason", metavar="TEXT", help="The reason; goes on record with your name. Required.")
@click.option("--only", metavar="KIND,...", help="Only reasons of these kinds.")
@click.option("--dry-run", is_flag=True, help="Show what would be accepted, and write nothing.")
@click.option("--list", "lists", is_flag=True, help="List acceptances with author and reason.")
@click.option("--undo", "undoes", is_flag=True, help="Undo an acceptance: its reasons count again.")
@json_option
@click.pass_context
def accept(
    ctx: click.Context,
    nodes: tuple[str, ...],
    select_: tuple[str, ...],
    reason: str | None,
    only: str | None,
    dry_run: bool,
    undoes: bool,
    lists: bool,
    as_json: bool,
) -> None:
    """Accept the differences of nodes as immaterial: the nodes are fresh, under your name, until something else
    differs.
    """
    if lists:
        _list(open_project(ctx), as_json)
        return
    kinds = checked_kinds(only)
    why = checked_reason(reason) if reason is not None or not dry_run else ""
    project = open_project(ctx)
    if not dry_run:
        project.catalog.refuse_archived()
    look_first(project)
    keys = _keys(project, nodes, select_)
    (_undo if undoes else _accept)(project, keys, kinds, why, dry_run, as_json)


def _list(project: Project, as_json: bool) -> None:
    seen = mask_of(project)
    rows = [{**row._asdict(), "words": seen.text(row.words)} for row in current_acceptances(project)]
    if as_json:
        echo_json(rows)
        return
    said = [
        (row["at"][:10], row["actor"], row["asset"], row["nodes"], row["first"], f"{row['kind']}: {row['words']}")
        for row in rows
    ]
    columns = ("day", "by", "step", "nodes", "first", "accepted", "reason")
    table(columns, [(*cells, row["reason"]) for cells, row in zip(said, rows, strict=True)])


def _keys(project: Project, nodes: Sequence[str], select_: Sequence[str]) -> dict[str, set[str]]:
    if not nodes and not select_:
        raise Usage("which nodes? `ct accept STEP/PARTITION…`, or `--select STEP`")
    found = (select_nodes(project, select_) or {}) if select_ else {}
    for asset, partition in find_nodes(project, nodes):
        project.steps[asset]
        found.setdefault(asset, set()).add(partition)
    return found


def _accept(
    project: Project, keys: Mapping[str, set[str]], kinds: frozenset[str], why: str, dry_run: bool, as_json: bool
) -> None:
    proposal = propose(project, keys, kinds)
    seen = mask_of(project)
    groups = {(asset, seen.reason(reason)): some for (asset, reason), some in proposal.groups().items()}
    if not as_json:
        rows = [(g.step, g.nodes, f"{g.kind}: {g.text}") for g in group_reasons(groups)]
        table(("step", "nodes", "accepted"), rows)
    done = proposal if dry_run else accept_reasons(project, proposal, why)
    if as_json:
        listed = [
            {
                "step": asset,
                "kind": r.kind,
                "words": str(r.words),
                "evidence": r.evidence,
                "partitions": partitions,
            }
            for (asset, r), partitions in groups.items()
        ]
        echo_json({"dry_run": dry_run, "nodes": len(done.reasons), "left": proposal.left, "accepted": listed})
        return
    _said(project, "accepted", len(done.reasons), dry_run)
    if proposal.left:
        click.echo(f"still not fresh: {in_words(proposal.left)}", err=True)


def _undo(
    project: Project, keys: Mapping[str, set[str]], kinds: frozenset[str], why: str, dry_run: bool, as_json: bool
) -> None:
    rows = undoable(project, keys, kinds) if dry_run else undo(project, keys, kinds, why)
    nodes = {(row.asset, row.partition) for row in rows}
    seen = mask_of(project)
    counts = Counter((row.asset, row.kind, seen.text(row.words)) for row in rows)
    if as_json:
        listed = [{"step": a, "kind": k, "words": words, "nodes": n} for (a, k, words), n in counts.items()]
        echo_json({"dry_run": dry_run, "nodes": len(nodes), "undone": listed})
        return
    table(("step", "nodes", "undone"), [(a, n, f"{kind}: {words}") for (a, kind, words), n in counts.items()])
    _said(project, "undone", len(nodes), dry_run)


def _said(project: Project, what: str, nodes: int, dry_run: bool) -> None:
    if dry_run:
        click.echo(f"{nodes} node{'s' * (nodes != 1)}; nothing was written (--dry-run)", err=True)
    else:
        click.echo(f"{what} for {nodes} node{'s' * (nodes != 1)} by {project.catalog.actor}", err=True)
