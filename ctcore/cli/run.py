"""`ct run` and `ct dev`: making what is stale, and Dagster's own UI with the daemon."""

import os
import signal
import subprocess
import sys
from types import FrameType

import click

from ctcore.cli.render import opened
from ctcore.dagster_home import environment, launch


@click.command()
@click.argument("what", nargs=-1, metavar="[STEP|STEP/PARTITION]...")
@click.pass_context
def run(ctx: click.Context, what: tuple[str, ...]) -> None:
    """Make everything that is stale, or these steps and nodes with what they need. Fresh ones are left alone."""
    ctx.exit(launch(opened(ctx), "run", *what))


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the UI listens.")
@click.option("--port", default=3000, show_default=True, help="The UI's port.")
@click.pass_context
def dev(ctx: click.Context, host: str, port: int) -> None:
    """Open the Dagster UI on this project: webserver and daemon, until Ctrl-C."""
    project = opened(ctx)
    launch(project, "sync")
    command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-h", host, "-p", str(port)]
    click.echo(f"{project.id}: http://{host}:{port} (Ctrl-C ends it)", err=True)
    process = subprocess.Popen(command, cwd=project.root, env=environment(project), start_new_session=True)

    def end(number: int, _frame: FrameType | None) -> None:
        os.killpg(process.pid, signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    ctx.exit(abs(process.wait()))
