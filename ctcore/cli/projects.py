"""`ct projects`: the projects that are known by ID, and the state of each."""

from pathlib import Path
from typing import Any

import click

from ctcore.catalog.ownership import STATES, State
from ctcore.config.address_book import folder_of, known_projects
from ctcore.project import Project
from ctcore.projects import listing as book
from ctcore.projects.dagster_home import workspace
from ctcore.projects.lifecycle import change_state
from ctcore.terminal.place import Place
from ctcore.terminal.render import echo_json, json_option, open_project, table

reason_option = click.option(
    "--reason", required=True, metavar="TEXT", help="The reason. Goes on record with your name."
)


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def projects(ctx: click.Context, as_json: bool) -> None:
    """List, add and remove projects; archive and reopen them."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_projects, as_json=as_json)


@projects.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only projects in this state.")
@json_option
def list_projects(state: State | None = None, as_json: bool = False) -> None:
    """List known projects with state, size and last change. Changes none of them."""
    found = [one for one in book.project_rows() if state in (None, one.state)]
    if as_json:
        echo_json([vars(one) for one in found])
        return
    columns = ("id", "name", "state", "patients", "specimens", "assays", "artifacts", "last change", "folder")
    table(columns, [_row(one) for one in found])
    for one in found:
        if one.problem:
            click.echo(f"{one.id}: {one.problem}", err=True)
    if not found:
        none = f"none is {state}" if state else "none is known"
        click.echo(f"{none}; `ct init` makes one, `ct projects add DIR` makes one known", err=True)


def _row(one: book.ProjectRow) -> tuple[Any, ...]:
    counts = [one.counts.get(what, "") for what in ("patient", "specimen", "assay", "artifact")]
    return (one.id, one.name, one.state, *counts, one.changed[:16].replace("T", " "), one.folder)


@projects.command()
@click.argument("directory", type=Place(path_type=Path))
def add(directory: Path) -> None:
    """Add the project in DIRECTORY to the list, or record its new place."""
    project = Project.find(directory)
    book.add(project)
    click.echo(f"{project.id}: {project.root}", err=True)


@projects.command()
@click.argument("project_id", metavar="ID")
def remove(project_id: str) -> None:
    """Remove a project from the list. Nothing is deleted."""
    folder = book.remove(project_id)
    click.echo(f"{project_id} is forgotten; {folder} is as it was", err=True)


@projects.command("workspace")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.pass_context
def show_workspace(ctx: click.Context, ids: tuple[str, ...]) -> None:
    """Print Dagster's workspace.yaml, with one code location per project.

    Without ID: this project and all that share its instance.
    """
    chosen = [_named(ctx, one) for one in dict.fromkeys(ids)] if ids else book.sharing_projects(open_project(ctx))
    click.echo(workspace(chosen), nl=False)
    click.echo(f"DAGSTER_HOME={chosen[0].dagster_home}", err=True)


@projects.command("set")
@click.argument("project_id", metavar="ID")
@click.argument("state", type=click.Choice(STATES))
@reason_option
@click.pass_context
def set_state(ctx: click.Context, project_id: str, state: State, reason: str) -> None:
    """Make a project active, complete or archived. An archived project refuses every write."""
    _change(ctx, project_id, state, reason)


@projects.command("open")
@click.argument("project_id", metavar="ID")
@reason_option
@click.pass_context
def open_again(ctx: click.Context, project_id: str, reason: str) -> None:
    """Reopen an archived project. It is active until somebody archives it again."""
    _change(ctx, project_id, "active", reason)


def _change(ctx: click.Context, project_id: str, state: State, reason: str) -> None:
    project = _named(ctx, project_id)
    click.echo(f"{project.id} is {change_state(project, state, reason).words}", err=True)


def _named(ctx: click.Context, project_id: str) -> Project:
    """The project of this ID: the one that is opened here, known or not, or else a known one."""
    if project_id not in known_projects() or ctx.obj:
        here = open_project(ctx)
        if here.id == project_id:
            return here
    return Project(folder_of(project_id))
