"""`ct trace`: what something was made from."""

import os
from collections.abc import Sequence
from pathlib import Path

import click

from ctcore.errors import ProjectError, Usage
from ctcore.governance.masking import UNMASKED, mask_for, mask_of
from ctcore.model.reasons import short_digest
from ctcore.project import Project
from ctcore.query.disclosure import allow, mask_for_makings, why_hidden
from ctcore.query.disclosure import readable_makings as open_ones
from ctcore.terminal.damage import show_cycle
from ctcore.terminal.render import echo_json, excluded_options, json_option, open_project, say


@click.command()
@click.argument("what")
@json_option
@click.option("--mermaid", is_flag=True, help="Print a Mermaid flowchart.")
@click.option("--dot", is_flag=True, help="Print a graph for Graphviz.")
@click.option("--all", "everything", is_flag=True, help="Show all sources.")
@click.option("--code", is_flag=True, help="Print the code of each step, as it counts for the key.")
@excluded_options
@click.pass_context
def trace(
    ctx: click.Context,
    what: str,
    as_json: bool,
    mermaid: bool,
    dot: bool,
    everything: bool,
    code: bool,
    excluded: bool,
    reason: str | None,
) -> None:
    """Show how WHAT was made, down to the sheet and the raw files: a node, a file (found by its bytes), or a digest.

    Outside of any project, a file is looked for in all known ones.
    """
    forms = {"json": as_json, "mermaid": mermaid, "dot": dot, "code": code}
    chosen = [name for name, is_chosen in forms.items() if is_chosen]
    if len(chosen) > 1:
        raise click.UsageError("choose one of --json, --mermaid, --dot and --code")
    form = chosen[0] if chosen else ""
    projects = _owners(ctx, what) or [open_project(ctx)]
    if len(projects) > 1 and form not in ("", "code"):
        names = " or ".join(f"--project {one.id}" for one in projects)
        raise Usage(f"{what} is of {len(projects)} projects; say of which: {names}")
    for project in projects:
        if len(projects) > 1:
            click.echo(f"== {project.id}")
        _trace(project, what, form, everything, excluded, reason)


def _owners(ctx: click.Context, what: str) -> Sequence[Project]:
    """Outside of any project: the known ones that a file is of. Empty otherwise."""
    if ctx.obj or os.environ.get("CT_PROJECT") or not Path(what).is_file() or _is_inside_project():
        return ()
    from ctcore.lineage.elsewhere import owners_of

    found = owners_of(Path(what))
    for said in found.unread:
        click.echo(said, err=True)
    for project in found.projects:
        click.echo(f"{what} is of project {project.id} ({project.root})", err=True)
    return found.projects


def _is_inside_project() -> bool:
    try:
        Project.find()
    except ProjectError:
        return False
    return True


def _trace(project: Project, what: str, form: str, everything: bool, excluded: bool, reason: str | None) -> None:
    from ctcore.lineage.target import find_target
    from ctcore.lineage.trace import as_data
    from ctcore.lineage.trace import trace as find
    from ctcore.terminal import mermaid_dot, tree

    found = find(project, find_target(project, what), files=form == "json")
    roots = found.target.made.values()
    allow(project, what, why_hidden(project, roots, found.lineage, found.target.registered), excluded, reason)
    seen = UNMASKED if excluded else mask_for(project, what)
    if not excluded:
        found.lineage.mask_reasons(mask_for_makings(project, roots))
    if form == "json":
        makings = found.lineage.makings
        echo_json(
            as_data(found, seen, set(makings) if excluded else open_ones(project, makings.values(), found.lineage))
        )
        return
    if form in ("mermaid", "dot"):
        click.echo((mermaid_dot.mermaid if form == "mermaid" else mermaid_dot.dot)(found, everything))
        return
    for note in found.target.notes:
        click.echo(seen.mask_words(note), err=True)
    if form == "code":
        _show_code(project, {one["code"]: one["step"] for one in found.recipes.values()})
        return
    tree.draw(found, everything)
    if found.roots:
        click.echo(f"in all: {tree.summary(found)}")
    show_cycle(found.cycle)


def _show_code(project: Project, codes: dict[str, str]) -> None:
    """The code of each step of a lineage."""
    from ctcore.code.archive import code_lines, read_code

    for digest, name in codes.items():
        content = read_code(project.store.root, digest)
        click.echo(f"== {name} {short_digest(digest)}")
        said = (
            code_lines(content) if content else ["it is not in store/.code: an earlier ct ran it, or the file is gone"]
        )
        for line in mask_of(project).lines(said):
            say(line)
