"""`ct dev`: Dagster's UI and daemon for a project."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import click

from ctcore.errors import Usage
from ctcore.projects.code_files import OWN_WORKSPACE, WORKSPACE
from ctcore.projects.dagster_home import environment, launch, workspace
from ctcore.projects.listing import sharing_projects
from ctcore.terminal.render import open_project

END_S = 20  # how long the daemon may take to end


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The UI's address.")
@click.option("--port", default=3000, show_default=True, help="The UI's port.")
@click.pass_context
def dev(ctx: click.Context, host: str, port: int) -> None:
    """Open the Dagster UI (webserver and daemon) for this project and all that share its instance, until Ctrl-C."""
    project = open_project(ctx)
    together = sharing_projects(project)
    for one in together:
        if not (needed := one.root / "definitions.py").is_file():
            raise Usage(f"{needed} is not there, and Dagster reads it first; copy that of a new project (`ct init`)")
        launch(one, "sync")
    folder, variables = project.root, environment(project)
    if project.is_shared or len(together) > 1 or not (folder / WORKSPACE).is_file():
        folder = project.dagster_home
        (folder / WORKSPACE).write_text(workspace(together), encoding="utf-8")
        del variables["CT_PROJECT"]
    command = [sys.executable, "-m", "dagster", "dev", *workspaces(folder), "-h", host, "-p", str(port)]
    click.echo(f"{', '.join(one.id for one in together)}: http://{host}:{port} (Ctrl-C ends it)", err=True)
    ctx.exit(_until_ended(command, folder, variables))


def workspaces(folder: Path) -> list[str]:
    """The arguments that name the code locations to Dagster: ours, and the group's own."""
    own = ["-w", OWN_WORKSPACE] if (folder / OWN_WORKSPACE).is_file() else []
    return ["-w", WORKSPACE, *own]


def _until_ended(command: list[str], folder: Path, variables: dict[str, str]) -> int:
    """Run a command with all its children until it ends or this process is told to; nothing is left running."""
    told: list[int] = []
    # Set before the child starts: it would inherit an ignored Ctrl-C from a background shell, and never end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: told.append(number))
    process = subprocess.Popen(command, cwd=folder, env=variables, start_new_session=True)
    while process.poll() is None and not told:
        time.sleep(0.2)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return 128 + told[0] if told else abs(process.wait())
