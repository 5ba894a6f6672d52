"""`ct jobs`: what is in Slurm."""

from dataclasses import replace

import click

from ctcore.execution.slurm.job_list import listed_jobs
from ctcore.governance.masking import WITHHELD, mask_of
from ctcore.terminal.render import echo_json, json_option, open_project, table

COLUMNS = ("node", "job", "state", "since", "on", "profile", "asked", "try", "for", "log")


@click.command()
@click.option("--all", "also_ended", is_flag=True, help="Also the last hundred jobs that ended.")
@json_option
@click.pass_context
def jobs(ctx: click.Context, also_ended: bool, as_json: bool) -> None:
    """List the jobs in Slurm: node, state, age, run and log."""
    project = open_project(ctx)
    found, seen = listed_jobs(project, also_ended), mask_of(project)
    listed = [replace(one, state=seen.text(one.state)) for one in found.jobs]
    listed = [replace(one, node=WITHHELD, log="") if seen.names_hidden(one.node) else one for one in listed]
    if as_json:
        echo_json([vars(one) for one in listed])
        return
    rows = [
        (one.node, one.job, one.state, one.since, one.on, one.profile, one.asked, one.tries, one.run, one.log)
        for one in listed
    ]
    table(COLUMNS, rows)
    if not found.answered:
        click.echo("Slurm does not answer; these are the last known states", err=True)
