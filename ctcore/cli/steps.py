"""`ct steps`: how the code of each step is known, and what of it cannot be."""

from collections.abc import Iterator
from typing import Any

import click

from ctcore.code import Code
from ctcore.project import Project
from ctcore.step import Step
from ctcore.terminal.render import FOUND, echo_json, json_option, open_project, table


@click.group()
def steps() -> None:
    """Check which code of each step ct follows."""


@steps.command()
@click.argument("names", nargs=-1, metavar="[STEP]...")
@json_option
@click.pass_context
def check(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """List for each step the code that ct follows, files that count whole, and code that it cannot follow.

    Exit code 3 if ct cannot follow some code: it would not notice a change there.
    """
    project = open_project(ctx)
    listed = [project.steps[name] for name in names] if names else list(project.steps)
    codes = {step.name: project.codes[step.name] for step in listed}
    if as_json:
        echo_json([_data(project, step, codes[step.name]) for step in listed])
    else:
        columns = ("step", "file", "names followed", "files", "whole", "beside", "tools", "cannot be followed")
        table(columns, [_row(step, codes[step.name]) for step in listed])
        for line in _notes(codes):
            click.echo(line, err=True)
        if elsewhere := [step.name for step in listed if step.made_elsewhere]:
            click.echo(f"made elsewhere, so that ct sees none of its code: {', '.join(elsewhere)}", err=True)
    ctx.exit(FOUND if any(code.unfollowed for code in codes.values()) else 0)


def _row(step: Step, code: Code) -> tuple[object, ...]:
    source = code.content["source"]
    names = [name for _, name, _ in source if name and not name.startswith("import ")]
    beside = len(code.content.get("files", ()))
    files = len({file for file, _, _ in source})
    tools = ", ".join(step.tools)
    return (step.name, step.source.name, len(names), files, len(code.whole), beside, tools, len(code.unfollowed))


def _notes(codes: dict[str, Code]) -> Iterator[str]:
    """What counts whole and what cannot be followed, each place once, with the steps that it is about."""
    for what in ("whole", "unfollowed"):
        places: dict[str, list[str]] = {}
        for name, code in codes.items():
            for note in getattr(code, what):
                places.setdefault(str(note), []).append(name)
        for place, names in places.items():
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            yield f"{'counts whole' if what == 'whole' else 'cannot be followed'}: {place} ({shown})"


def _data(project: Project, step: Step, code: Code) -> dict[str, Any]:
    source = code.content["source"]
    return {
        "step": step.name,
        "file": project.recorded(step.source),
        "digest": code.digest,
        "followed": [f"{file}:{name}" for file, name, _ in source if name and not name.startswith("import ")],
        "whole": [vars(note) for note in code.whole],
        "beside": dict(code.content.get("files", {})),
        "tools": project.tools.versions(step.tools),
        "environment": dict(code.environment),
        "cannot_be_followed": [vars(note) for note in code.unfollowed],
    }
