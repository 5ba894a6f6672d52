"""`ct path`: where the files of a node are."""

import click

from ctcore.cohorts.lookup import find_node
from ctcore.lineage.explain import artifact_path
from ctcore.model.node import name_of
from ctcore.projects.missing_store import refuse_without_store
from ctcore.query.disclosure import disclose
from ctcore.terminal.render import FOUND, echo_json, excluded_options, json_option, open_project


@click.command()
@click.argument("node")
@click.argument("output", required=False)
@excluded_options
@json_option
@click.pass_context
def path(ctx: click.Context, node: str, output: str | None, excluded: bool, reason: str | None, as_json: bool) -> None:
    """Print the folder of a node's current artifact, or the path of one of its files.

    OUTPUT is the name of an output or of a file. Exit code 3 if the artifact or one of its files is gone.
    """
    project = open_project(ctx)
    which = find_node(project, node)
    disclose(project, which, excluded, reason)
    refuse_without_store(project)
    found, lost = artifact_path(project, which, output)
    if lost == found:
        pass  # a script would go on with it
    elif as_json:
        echo_json({"node": name_of(which), "path": str(found)})
    else:
        click.echo(found)
    if lost is not None:
        click.echo(f"{lost} is gone; {project.steps[which[0]].way_to(which[1], again=True)}", err=True)
        ctx.exit(FOUND)
