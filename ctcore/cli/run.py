"""`ct run`: making what is stale."""

import os
from pathlib import Path

import click

from ctcore.cohorts.filters import NodeFilter
from ctcore.cohorts.partitions import is_empty
from ctcore.cohorts.selection import HELP, named_nodes
from ctcore.errors import Usage
from ctcore.planning.dagster_knowledge import is_told
from ctcore.planning.plan import scope
from ctcore.planning.plan_file import planned_scope
from ctcore.planning.work_list import WorkList
from ctcore.projects.dagster_home import launch
from ctcore.query.disclosure import refuse_excluded
from ctcore.terminal.cohort_options import narrowing_options
from ctcore.terminal.look_before_run import look_before_run
from ctcore.terminal.place import Place
from ctcore.terminal.render import FOUND, open_project


@click.command()
@click.argument("what", nargs=-1, metavar="[STEP|STEP/PARTITION]...")
@click.option("--select", "-s", "select", multiple=True, metavar="WHAT", help=f"Of these: {HELP}.")
@click.option(
    "--plan", "file", type=Place(path_type=Path), help="Make exactly the nodes of a file from `ct plan --save`."
)
@click.option("--partial", is_flag=True, help="With --plan: skip nodes that changed since the plan.")
@click.option(
    "--profile", metavar="NAME", help="Where to run: local, or a [slurm.NAME] of ct.toml (default: CT_PROFILE)."
)
@click.option("--again", is_flag=True, help="Repeat the calls of these nodes and compare the bytes.")
@click.option("--replace", is_flag=True, help="With --again: results with other bytes replace the old ones.")
@click.option("--no-cache", is_flag=True, help="Run stale calls even if the same call was made before, and compare.")
@click.option(
    "--fail",
    type=click.Choice(["slow", "fast"]),
    default="slow",
    show_default=True,
    help="After a failed call: slow, the other calls go on; fast, running calls finish and no new ones start.",
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
    """Make all stale nodes, or these steps and nodes with their inputs. Fresh nodes are left alone.

    With --again, exit code 3 if a result came out with other bytes. Only --replace lets it replace the old one.
    """
    texts, narrowing = (*what, *select), NodeFilter(cohort, pairing, complete_only)
    if file is not None and (texts or narrowing):
        raise Usage("--plan runs the plan's nodes: leave out either --plan or the steps, nodes and cohort")
    if again and (file is not None or narrowing or no_cache):
        raise Usage("--again takes steps and nodes, and --profile")
    if again and ctx.get_parameter_source("fail") is not click.core.ParameterSource.DEFAULT:
        raise Usage("--fail does not go with --again, which makes each node separately")
    if replace and not again:
        raise Usage("--replace goes with --again only: it replaces results that came out with other bytes")
    if partial and file is None:
        raise Usage("--partial is for --plan FILE")
    if profile is not None:
        os.environ["CT_PROFILE"] = profile
    project = open_project(ctx)
    project.catalog.refuse_archived()
    refuse_excluded(project, named_nodes(project, texts))
    project.look_at_tools()
    narrowing.resolved_pairing(project)
    if is_empty(project):
        ctx.exit(0)
    if again:
        from ctcore.cli.run_again import make_again

        ctx.exit(make_again(project, texts, replace))
    problems = look_before_run(project)
    asked = planned_scope(project, file, partial) if file else scope(project, texts, narrowing)
    work = WorkList(project, asked)
    if work.is_empty() and is_told(project, with_registry=asked.only is None):
        for said in (*asked.notes, *work.left_lines(is_idle=True, problems=problems)):
            click.echo(said, err=True)
        ctx.exit(FOUND if problems else 0)
    planned = [] if file is None else ["--plan", str(file.absolute()), *(["--partial"] if partial else [])]
    options = [*planned, *narrowing.options, *(["--no-cache"] if no_cache else []), "--fail", fail]
    ctx.exit(launch(project, "run", *options, "--problems", str(problems), "--", *texts))
