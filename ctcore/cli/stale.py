"""`ct stale`: what is not fresh, and why."""

from collections.abc import Mapping
from typing import Any

import click

from ctcore.cohorts.selection import HELP as SELECTION
from ctcore.cohorts.selection import select_nodes
from ctcore.model.node import name_of
from ctcore.model.reasons import Verdict
from ctcore.query.exclusion_counts import Kinds, excluded_by_step, excluded_lines
from ctcore.staleness.summary import EACH_UP_TO, Overview, by_node, change_of, overview
from ctcore.terminal.cohort_options import filter_selected, narrowing_options
from ctcore.terminal.look_first import look_first
from ctcore.terminal.render import FOUND, echo_json, json_option, open_project, table
from ctcore.terminal.verdict_text import in_words, reasons_json

_COUNTS = ("step", "level", "nodes", "fresh", "accepted", "never made", "changed", "about to change", "states")


@click.command()
@click.option(
    "--why", is_flag=True, help="Add the reasons, grouped if there are many nodes, and why others are excluded."
)
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
    """List nodes that are not fresh, by step: those with a cause of their own, and those that wait for them. Exit
    code 3 if there are any.
    """
    project = open_project(ctx)
    sight = look_first(project)
    keys = filter_selected(project, select_nodes(project, select_), cohort, pairing, complete_only)
    found = overview(project, keys)
    left_out = excluded_by_step(project, keys) if why else {}
    if as_json:
        echo_json(
            {
                "steps": [_as_json(one) for one in found.counts],
                **(_reasons_json(found, left_out) if why else {}),
                "looked": sight.as_json(),
            }
        )
    else:
        _counts(found)
        if why and found.verdicts:
            click.echo()
            _reasons(found)
        for said in excluded_lines(left_out):
            click.echo(said, err=True)
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


def _reasons_json(found: Overview, left_out: Mapping[str, Kinds]) -> dict[str, Any]:
    nodes = [node_json(verdict) for verdict in found.verdicts]
    return {"nodes": nodes, "excluded": {step: dict(kinds) for step, kinds in left_out.items()}}


def node_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict that is not fresh, with the whole evidence of its reasons."""
    return {
        "node": name_of(verdict.node),
        "state": verdict.state,
        "change": change_of(verdict),
        "reasons": reasons_json(verdict),
    }


def _counts(found: Overview) -> None:
    rows = [
        (c.step, c.level, c.nodes, c.fresh, c.accepted, c.missing, c.changed, c.waiting, in_words(c.states))
        for c in found.counts
    ]
    table(_COUNTS, rows)


def _reasons(found: Overview) -> None:
    if len(found.verdicts) <= EACH_UP_TO:
        table(("node", "state", "change", "why"), by_node(found.verdicts))
        return
    rows = [(g.step, g.nodes, f"{g.kind}: {g.text}") for g in found.groups()]
    table(("step", "nodes", "why"), rows)
    click.echo(f"{len(found.verdicts)} nodes in groups; --json names each", err=True)
