"""`ct stale`, `ct accept`: what is not fresh and why, and saying by name that a difference does not matter."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import click

from ctcore.accept import accept as accept_reasons
from ctcore.accept import checked_kinds, checked_reason, propose, standing, undo, undoable
from ctcore.cli.looks import looked
from ctcore.cli.narrowing import narrowed, narrowing_options
from ctcore.cli.render import FOUND, echo_json, json_option, opened, table
from ctcore.errors import Usage
from ctcore.nodes import find_nodes
from ctcore.overview import EACH_UP_TO, Overview, by_node, change_of, grouped, overview
from ctcore.project import Project
from ctcore.reasons import Verdict, name_of
from ctcore.select import HELP as SELECTION
from ctcore.select import selected
from ctcore.veil import veil

_COUNTS = ("step", "level", "nodes", "fresh", "accepted", "never made", "changed", "about to change", "states")


@click.command()
@click.option("--why", is_flag=True, help="With the reasons; grouped where there are many nodes.")
@click.option("--select", "select_", metavar="SELECTION", multiple=True, help=f"Only these: {SELECTION}.")
@narrowing_options
@json_option
@click.pass_context
def stale(
    ctx: click.Context,
    why: bool,
    select_: tuple[str, ...],
    cohort: str | None,
    pairing: str | None,
    complete_only: bool,
    as_json: bool,
) -> None:
    """What is not fresh, by step: what has changed, and what is only about to. Exit code 3 where there is any."""
    project = opened(ctx)
    sight = looked(project)
    found = overview(project, narrowed(project, selected(project, select_), cohort, pairing, complete_only))
    if as_json:
        echo_json(
            {
                "steps": [_as_json(one) for one in found.counts],
                **(_reasons_json(found) if why else {}),
                "looked": sight.as_json(),
            }
        )
    else:
        _counts(found)
        if why and found.verdicts:
            click.echo()
            _reasons(found)
    ctx.exit(FOUND if found.verdicts or not sight.is_clear else 0)


def _as_json(one: Any) -> dict[str, Any]:
    return {
        "step": one.step,
        "level": one.level,
        "nodes": one.nodes,
        "fresh": one.fresh,
        "accepted": one.accepted,
        "never_made": one.missing,
        "changed": one.changed,
        "about_to_change": one.waiting,
        "states": one.states,
    }


def _reasons_json(found: Overview) -> dict[str, Any]:
    return {"nodes": [node_json(verdict) for verdict in found.verdicts]}


def node_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict that is not fresh, with the whole evidence of its reasons."""
    return {
        "node": name_of(verdict.node),
        "state": verdict.state,
        "change": change_of(verdict),
        "reasons": reasons_json(verdict),
    }


def reasons_json(verdict: Verdict) -> list[dict[str, Any]]:
    """The reasons of a verdict that the veil has told."""
    return [
        {
            "kind": r.kind,
            "words": str(r.words),
            "node": r.node and name_of(r.node),
            "path": [name_of(step) for step in r.path],
            "input": r.input,
            "old": r.old,
            "new": r.new,
            "evidence": r.evidence,
        }
        for r in verdict.reasons
    ]


def _counts(found: Overview) -> None:
    rows = [
        (c.step, c.level, c.nodes, c.fresh, c.accepted, c.missing, c.changed, c.waiting, _listed(c.states))
        for c in found.counts
    ]
    table(_COUNTS, rows)


def _listed(states: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {state}" for state, n in states.items())


def _reasons(found: Overview) -> None:
    if len(found.verdicts) <= EACH_UP_TO:
        table(("node", "state", "change", "why"), by_node(found.verdicts))
        return
    rows = [(g.step, g.nodes, f"{g.kind}: {g.text}") for g in found.groups()]
    table(("step", "nodes", "why"), rows)
    click.echo(f"{len(found.verdicts)} nodes in groups; --json names each", err=True)


@click.command()
@click.argument("nodes", nargs=-1, metavar="NODE...")
@click.option("--select", "select_", metavar="SELECTION", multiple=True, help=f"Also these: {SELECTION}.")
@click.option("--reason", metavar="TEXT", help="Why; it is kept beside your name. Required.")
@click.option("--only", metavar="KIND,...", help="Only reasons of these kinds.")
@click.option("--dry-run", is_flag=True, help="Say what would be accepted, and write nothing.")
@click.option("--list", "lists", is_flag=True, help="What stands as accepted, by whom, and why.")
@click.option("--undo", "undoes", is_flag=True, help="Take back what was accepted: the reasons count again.")
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
    """Accept what differs now of nodes as not mattering: fresh, with your name on it, until something else differs."""
    if lists:
        _list(opened(ctx), as_json)
        return
    kinds = checked_kinds(only)
    why = checked_reason(reason) if reason is not None or not dry_run else ""
    project = opened(ctx)
    if not dry_run:
        project.catalog.refuse_archived()
    looked(project)
    keys = _keys(project, nodes, select_)
    (_undo if undoes else _accept)(project, keys, kinds, why, dry_run, as_json)


def _list(project: Project, as_json: bool) -> None:
    seen = veil(project)
    rows = [{**row._asdict(), "words": seen.text(row.words)} for row in standing(project)]
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
    found = (selected(project, select_) or {}) if select_ else {}
    for asset, partition in find_nodes(project, nodes):
        project.steps[asset]
        found.setdefault(asset, set()).add(partition)
    return found


def _accept(
    project: Project, keys: Mapping[str, set[str]], kinds: frozenset[str], why: str, dry_run: bool, as_json: bool
) -> None:
    proposal = propose(project, keys, kinds)
    seen = veil(project)
    groups = {(asset, seen.reason(reason)): some for (asset, reason), some in proposal.groups().items()}
    if not as_json:
        rows = [(g.step, g.nodes, f"{g.kind}: {g.text}") for g in grouped(groups)]
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
        click.echo(f"still not fresh: {_listed(proposal.left)}", err=True)


def _undo(
    project: Project, keys: Mapping[str, set[str]], kinds: frozenset[str], why: str, dry_run: bool, as_json: bool
) -> None:
    rows = undoable(project, keys, kinds) if dry_run else undo(project, keys, kinds, why)
    nodes = {(row.asset, row.partition) for row in rows}
    seen = veil(project)
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
