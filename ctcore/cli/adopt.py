"""`ct adopt`: files of another pipeline, with what they were made from."""

from pathlib import Path

import click

from ctcore.cohorts.lookup import find_node
from ctcore.errors import Usage
from ctcore.model.node import name_of
from ctcore.model.reasons import short_digest
from ctcore.terminal.name_values import name_values
from ctcore.terminal.place import Place
from ctcore.terminal.render import echo_json, json_option, open_project, size, table

SHOWN = 20


@click.command()
@click.argument("what", metavar="STEP/PARTITION | STEP")
@click.option("--output", "outputs", multiple=True, metavar="NAME=FILE", help="The file of this output.")
@click.option(
    "--folder",
    type=Place(path_type=Path),
    metavar="DIR",
    help="Take the outputs that are not named from here, by their declared file names.",
)
@click.option(
    "--sheet", type=Place(path_type=Path), metavar="FILE", help="Many nodes of STEP: columns partition and each output."
)
@click.option("--made-by", metavar="TEXT", default="", help="The pipeline or person that made it. Required.")
@click.option("--tool", "tools", multiple=True, metavar="NAME=VERSION", help="A tool that was used.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter, if it was not today's.")
@click.option(
    "--member",
    "members",
    multiple=True,
    metavar="[LEVEL/]ID[=ROLE]",
    help="A member. Name all of them; default: today's members of the cohort.",
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="STEP/PARTITION@MAKING",
    help="An input that was not today's, by its making's number or data version.",
)
@click.option(
    "--reference", "references", multiple=True, metavar="KEY=VERSION", help="A reference that was not today's version."
)
@click.option(
    "--checksum", "checksums", multiple=True, metavar="NAME=DIGEST", help="Check this output's MD5 or SHA-256."
)
@click.option("--reason", metavar="TEXT", default="", help="Why it is adopted.")
@click.option("--dry-run", is_flag=True, help="Check everything, and write nothing.")
@json_option
@click.pass_context
def adopt(
    ctx: click.Context,
    what: str,
    outputs: tuple[str, ...],
    folder: Path | None,
    sheet: Path | None,
    made_by: str,
    tools: tuple[str, ...],
    params: tuple[str, ...],
    members: tuple[str, ...],
    inputs: tuple[str, ...],
    references: tuple[str, ...],
    checksums: tuple[str, ...],
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Adopt files of another pipeline as the result of a step that is declared as made elsewhere.

    ct copies the files into the store. What is not named is taken as it is today: members, inputs, references,
    parameters. ct adopts all of it or nothing.
    """
    from ctcore.execution.adopt import AdoptedFiles, Story
    from ctcore.execution.adopt import adopt as write
    from ctcore.execution.adopt_sheet import read_adopted
    from ctcore.execution.named_inputs import NamedInputs

    project = open_project(ctx)
    named = NamedInputs(members, inputs, name_values("--reference", references))
    story = Story(made_by.strip(), name_values("--tool", tools), name_values("--param", params), named, reason.strip())
    if sheet is not None:
        if outputs or folder or checksums or members or inputs:
            of_one = "--output, --folder, --checksum, --member and --input are of one"
            raise Usage(f"--sheet names the files of many nodes; {of_one}")
        step = project.steps[what]
        entered = read_adopted(step, sheet, project.settings.reading)
    else:
        node = find_node(project, what)
        step = project.steps[node[0]]
        files = {name: folder / output.file for name, output in step.outputs.items()} if folder else {}
        files |= {name: Path(path) for name, path in name_values("--output", outputs).items()}
        entered = [AdoptedFiles(node[1], files, name_values("--checksum", checksums))]
    found = write(project, step, entered, story, dry_run)
    if as_json:
        echo_json([{**vars(one), "node": name_of(one.node)} for one in found])
        return
    rows = [
        (
            name_of(one.node),
            f"#{one.number}" if one.number else "",
            short_digest(one.data_version),
            size(one.size),
            *more,
        )
        for one in found[:SHOWN]
        for more in [(one.inputs, one.members)]
    ]
    table(("node", "making", "data version", "size", "inputs", "members"), rows)
    if len(found) > SHOWN:
        click.echo(f"… and {len(found) - SHOWN} more (--json)", err=True)
    same = sum(one.same for one in found)
    if same < len(found):
        click.echo(f"{len(found) - same} {'would be ' * dry_run}adopted, {story.words}", err=True)
    if same:
        click.echo(f"{same} there already: the same files with the same story", err=True)
