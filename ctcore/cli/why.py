"""`ct why`: the reasons why a node is not fresh."""

import sys

import click

from ctcore.cohorts.lookup import find_node
from ctcore.errors import Usage
from ctcore.lineage.explain import column_values
from ctcore.lineage.explain import why as explain
from ctcore.model.node import name_of
from ctcore.query.disclosure import why_withheld
from ctcore.terminal.look_first import look_first
from ctcore.terminal.render import FOUND, echo_json, is_terminal, json_option, open_project, say
from ctcore.terminal.verdict_text import reasons_json


@click.command()
@click.argument("node")
@click.option(
    "--values", is_flag=True, help="Also print old and new metadata values. They are personal data: terminals only."
)
@json_option
@click.pass_context
def why(ctx: click.Context, node: str, values: bool, as_json: bool) -> None:
    """Explain the state of a node (step/partition) in one sentence. Exit code 3 if it is not fresh."""
    if values and (as_json or not is_terminal(sys.stdout)):
        raise Usage("--values shows personal data: only on a terminal, as text")
    project = open_project(ctx)
    sight = look_first(project)
    found = explain(project, find_node(project, node))
    verdict = found.verdict
    hidden = why_withheld(project, verdict.node) is not None
    if as_json:
        echo_json(
            {
                "node": name_of(verdict.node),
                "state": verdict.state,
                "sentence": found.sentence,
                "reasons": reasons_json(verdict),
                "accepted": list(found.accepted),
                "built_from_accepted": found.built_from,
                "inside": found.inside,
                "roots": found.roots,
                "members": found.members,
                "unseen": found.unseen,
                "again": None if hidden else found.again,
                "undeclared": found.undeclared,
                "made": None if hidden else found.made,
                "failure": None if hidden else found.failure,
                "looked": sight.as_json(),
            }
        )
    else:
        say(found.text)
    for line in column_values(project, verdict) if values else ():
        say(line)
    ctx.exit(0 if verdict.state == "fresh" and sight.is_clear else FOUND)
