"""`ct jobs` and `ct logs`: what is in Slurm, and what a node's calls have said."""

import sys
from dataclasses import replace
from pathlib import Path

import click

from ctcore.cli.plain import harmless
from ctcore.cli.render import echo_json, excluded_options, is_terminal, json_option, opened, table
from ctcore.disclosure import allow, disclose, why_hidden, why_log_withheld
from ctcore.errors import Usage
from ctcore.explain import why
from ctcore.nodes import find_node
from ctcore.project import Project
from ctcore.reasons import name_of
from ctcore.slurm.listing import kept_of, lines_of, listed_jobs, log_of, log_of_making
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
    listed = [
        replace(one, node=WITHHELD, log="") if seen.is_in(one.node) else replace(one, state=seen.text(one.state))
        for one in found.jobs
    ]
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
@click.argument("node", metavar="NODE[@MAKING]")
@click.option("--path", "only_path", is_flag=True, help="Print where it is, instead of what it says.")
@excluded_options
@click.pass_context
def logs(ctx: click.Context, node: str, only_path: bool, excluded: bool, reason: str | None) -> None:
    """What the last call of a node (step/partition) printed, here or on the cluster; or one of its makings (NODE@12).

    What a call printed is kept with what it made: it is there also when work/ was emptied.
    """
    project = opened(ctx)
    if "@" in node:
        found, what = _of_making(project, node, excluded, reason)
    else:
        which = find_node(project, node)
        disclose(project, which, excluded, reason)
        found, what = log_of(project, which) or kept_of(project, which), name_of(which)
        if found is not None:
            allow(project, what, why_log_withheld(project, which, found), excluded, reason)
    if found is None:
        raise Usage(f"{what} has no log: {_instead(project, node)}")
    if only_path:
        click.echo(found)
        return
    said = lines_of(found) if excluded else veil(project).lines(lines_of(found))
    for line in said:
        click.echo(harmless(line) if is_terminal(sys.stdout) else line, nl=line.endswith(WITHHELD))


def _instead(project: Project, node: str) -> str:
    """Why a node has no log: its last call never began, as Slurm refused it, or nothing was tried."""
    if "@" not in node and (failure := why(project, find_node(project, node)).failure) is not None:
        return veil(project).text(str(failure["error"]))
    return "nothing of it has run yet, or it printed nothing"


def _of_making(project: Project, text: str, excluded: bool, reason: str | None) -> tuple[Path | None, str]:
    """The log of one making: whoever may not see all that is in it, may not see what was printed about it."""
    from ctcore.targets import find_target
    from ctcore.trace import trace

    found = trace(project, find_target(project, text))
    (one,) = found.target.made.values()
    allow(project, text, why_hidden(project, [one.node], found.nodes), excluded, reason)
    return log_of_making(project, one), f"{name_of(one.node)} #{one.id}"
