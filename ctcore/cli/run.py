"""`ct run` and `ct dev`: making what is stale, and Dagster's own UI with the daemon."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import click

from ctcore.batches import is_empty
from ctcore.cli.narrowing import narrowing_options
from ctcore.cli.render import opened
from ctcore.dagster_home import environment, launch, workspace
from ctcore.disclosure import refuse_excluded
from ctcore.errors import Usage
from ctcore.narrow import Narrowing
from ctcore.projects import beside
from ctcore.select import HELP, named_nodes

END_S = 20  # how long the daemon may take to end


@click.command()
@click.argument("what", nargs=-1, metavar="[STEP|STEP/PARTITION]...")
@click.option("--select", "-s", "select", multiple=True, metavar="WHAT", help=f"Of these: {HELP}.")
@click.option("--plan", "file", type=click.Path(path_type=Path), help="Exactly what `ct plan --save FILE` wrote down.")
@click.option("--partial", is_flag=True, help="With --plan: leave out what is not as planned any more.")
@click.option("--profile", metavar="NAME", help="Where jobs run: local, or a [slurm.NAME] of ct.toml (or CT_PROFILE).")
@click.option("--again", is_flag=True, help="Make these nodes once more beside themselves, and compare the bytes.")
@click.option("--replace", is_flag=True, help="With --again: what comes out with other bytes replaces what is there.")
@click.option("--no-cache", is_flag=True, help="Run what is stale also where the same call was made before; compare.")
@click.option(
    "--fail",
    type=click.Choice(["slow", "fast"]),
    default="slow",
    show_default=True,
    help="What a failed call does to the others. slow: nothing; fast: those that run may finish, no other starts.",
)
@narrowing_options
@click.pass_context
def run(
    ctx: click.Context,
    what: tuple[str, ...],
    select: tuple[str, ...],
    file: Path | None,
    partial: bool,
    profile: str | None,
    again: bool,
    replace: bool,
    no_cache: bool,
    fail: str,
    cohort: str | None,
    pairing: str | None,
    complete_only: bool,
) -> None:
    """Make everything that is stale, or these steps and nodes with what they need. Fresh ones are left alone.

    With --again, exit code 3 where some came out with other bytes. Nothing is replaced but with --replace.
    """
    texts, narrowing = (*what, *select), Narrowing(cohort, pairing, complete_only)
    if file is not None and (texts or narrowing):
        raise Usage("a plan says itself what runs: leave out either --plan or the steps, nodes and cohort")
    if again and (file is not None or narrowing or no_cache):
        raise Usage("--again takes steps and nodes, and --profile")
    if again and ctx.get_parameter_source("fail") is not click.core.ParameterSource.DEFAULT:
        raise Usage("--fail is for a run that others depend on; with --again each node is made by itself")
    if replace and not again:
        raise Usage("--replace is for --again: it says what becomes of what came out with other bytes")
    if partial and file is None:
        raise Usage("--partial is for --plan FILE")
    if profile is not None:
        os.environ["CT_PROFILE"] = profile
    project = opened(ctx)
    project.catalog.refuse_archived()
    refuse_excluded(project, named_nodes(project, texts))
    project.look_at_tools()
    planned = [] if file is None else ["--plan", str(file.absolute()), *(["--partial"] if partial else [])]
    narrowing.paired(project)
    if is_empty(project):
        ctx.exit(0)
    if again:
        from ctcore.cli.again import make_again

        ctx.exit(make_again(project, texts, replace))
    options = [*planned, *narrowing.options, *(["--no-cache"] if no_cache else []), "--fail", fail]
    ctx.exit(launch(project, "run", *options, "--", *texts))


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the UI listens.")
@click.option("--port", default=3000, show_default=True, help="The UI's port.")
@click.pass_context
def dev(ctx: click.Context, host: str, port: int) -> None:
    """Open the Dagster UI on this project, and on all that share its instance: webserver and daemon, until Ctrl-C."""
    project = opened(ctx)
    together = beside(project)
    for one in together:
        if not (needed := one.root / "definitions.py").is_file():
            raise Usage(f"{needed} is not there, and Dagster reads it first; copy that of a new project (`ct init`)")
        launch(one, "sync")
    folder, variables = project.root, environment(project)
    if project.is_shared or len(together) > 1 or not (folder / "workspace.yaml").is_file():
        folder = project.dagster_home
        (folder / "workspace.yaml").write_text(workspace(together), encoding="utf-8")
        del variables["CT_PROJECT"]
    command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-h", host, "-p", str(port)]
    click.echo(f"{', '.join(one.id for one in together)}: http://{host}:{port} (Ctrl-C ends it)", err=True)
    ctx.exit(_until_ended(command, folder, variables))


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
