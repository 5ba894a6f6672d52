"""`ct jobs` and `ct logs`: what is in Slurm, and what a node's calls have said."""

from dataclasses import replace

import click

from ctcore.cli.render import echo_json, excluded_options, json_option, opened, table
from ctcore.disclosure import disclose
from ctcore.errors import Usage
from ctcore.nodes import find_node
from ctcore.reasons import name_of
from ctcore.slurm.listing import listed_jobs, log_of
from ctcore.veil import WITHHELD, veil

COLUMNS = ("node", "job", "state", "since", "on", "profile", "asked", "try", "for", "log")


@click.command()
@click.option("--all", "also_ended", is_flag=True, help="Also the last hundred that have ended.")
@json_option
@click.pass_context
def jobs(ctx: click.Context, also_ended: bool, as_json: bool) -> None:
    """What is in Slurm now: of which node, in which state, for how long, for which run, and where its log is."""
    project = opened(ctx)
    found, seen = listed_jobs(project, also_ended), veil(project)
    listed = [replace(one, node=WITHHELD, log="") if seen.is_in(one.node) else one for one in found.jobs]
    if as_json:
        echo_json([vars(one) for one in listed])
        return
    rows = [
        (one.node, one.job, one.state, one.since, one.on, one.profile, one.asked, one.tries, one.run, one.log)
        for one in listed
    ]
    table(COLUMNS, rows)
    if not found.answered:
        click.echo("Slurm does not answer: states are those that were seen last", err=True)


@click.command()
@click.argument("node")
@click.option("--path", "only_path", is_flag=True, help="Print where it is, instead of what it says.")
@excluded_options
@click.pass_context
def logs(ctx: click.Context, node: str, only_path: bool, excluded: bool, reason: str | None) -> None:
    """What the last call of a node (step/partition) printed, here or on the cluster."""
    project = opened(ctx)
    which = find_node(project, node)
    disclose(project, which, excluded, reason)
    found = log_of(project, which)
    if found is None:
        raise Usage(f"{name_of(which)} has no log: nothing of it has run yet, or work/ was emptied")
    if only_path:
        click.echo(found)
        return
    with found.open(errors="replace") as lines:
        for line in lines:
            click.echo(line, nl=False)
