"""`ct logs`: what the calls of a node printed."""

import sys
from pathlib import Path

import click

from ctcore.cohorts.lookup import find_node
from ctcore.errors import Usage
from ctcore.execution.slurm.job_list import kept_log_of, lines_of, log_of, log_of_making
from ctcore.governance.masking import WITHHELD, mask_of
from ctcore.lineage.explain import why
from ctcore.model.node import name_of
from ctcore.project import Project
from ctcore.query.disclosure import allow, disclose, is_of_todays_call, why_log_hidden, why_log_withheld
from ctcore.terminal.render import excluded_options, is_terminal, open_project
from ctcore.terminal.safe_text import escape_controls


@click.command()
@click.argument("node", metavar="NODE[@MAKING]")
@click.option("--path", "only_path", is_flag=True, help="Print the log's path instead of its text.")
@excluded_options
@click.pass_context
def logs(ctx: click.Context, node: str, only_path: bool, excluded: bool, reason: str | None) -> None:
    """Print the output of a node's last call, here or on the cluster; or of one of its makings (NODE@12).

    ct stores the output with the result, so it is there even if work/ was emptied.
    """
    project = open_project(ctx)
    if "@" in node:
        found, what = _of_making(project, node, excluded, reason)
    else:
        which = find_node(project, node)
        found, what = log_of(project, which) or kept_log_of(project, which), name_of(which)
        if found is None or not is_of_todays_call(project, which, found):
            disclose(project, which, excluded, reason)
            if found is not None:
                allow(project, what, why_log_withheld(project, which, found), excluded, reason)
    if found is None:
        raise Usage(f"{what} has no log: {_instead(project, node)}")
    if only_path:
        click.echo(found)
        return
    said = lines_of(found) if excluded else mask_of(project).lines(lines_of(found))
    nothing = True
    for line in said:
        nothing = False
        click.echo(escape_controls(line) if is_terminal(sys.stdout) else line, nl=line.endswith(WITHHELD))
    if nothing:
        failed = _failure(project, node)
        click.echo(
            escape_controls(f"{what} printed nothing" + (f"; its last call failed: {failed}" if failed else "")),
            err=True,
        )


def _instead(project: Project, node: str) -> str:
    """Why a node has no log: its last call never began, as Slurm refused it, or nothing was tried."""
    return _failure(project, node) or "nothing of it has run yet, or it printed nothing"


def _failure(project: Project, node: str) -> str | None:
    """What the node's last call failed of, if it did."""
    failure = None if "@" in node else why(project, find_node(project, node)).failure
    return None if failure is None else mask_of(project).text(str(failure["error"]))


def _of_making(project: Project, text: str, excluded: bool, reason: str | None) -> tuple[Path | None, str]:
    """The log of one making: whoever may not see all that is in it, may not see what was printed about it."""
    from ctcore.lineage.target import find_target
    from ctcore.lineage.trace import trace

    found = trace(project, find_target(project, text))
    (one,) = found.target.made.values()
    allow(project, text, why_log_hidden(project, one, found.lineage), excluded, reason)
    return log_of_making(project, one), f"{name_of(one.node)} #{one.id}"
