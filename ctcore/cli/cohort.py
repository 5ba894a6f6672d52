"""`ct register`: who is in the cohort."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from ctcore.cli.render import Reading, echo_json, is_terminal, json_option, opened, table
from ctcore.comparison import Allowed, Changes
from ctcore.errors import Usage
from ctcore.files import check_references, look
from ctcore.project import Project
from ctcore.register import known_sheet, register_entity
from ctcore.register import register as register_sheet
from ctcore.step import ENTITY_LEVELS

SHOWN = 20


@click.command()
@click.argument("what", metavar="[SHEET | LEVEL ID]", required=False)
@click.argument("name", metavar="", required=False)
@click.option("--parent", metavar="ID", help="With LEVEL ID: the patient of a specimen, the specimen of an assay.")
@click.option("--set", "values", metavar="COLUMN=VALUE", multiple=True, help="With LEVEL ID: a value, or a raw file.")
@click.option("--map", "names", metavar="THEIRS=OURS", multiple=True, help="A column has another name here.")
@click.option("--ignore", metavar="COLUMN", multiple=True, help="Pass over this column of the sheet.")
@click.option("--tab", metavar="NAME", help="The tab of an .xlsx workbook.")
@click.option("--dry-run", is_flag=True, help="Say what would change and what would be stale, and write nothing.")
@click.option("--reparent", metavar="ID", multiple=True, help="Move this specimen or assay as the sheet says.")
@click.option("--update", metavar="LEVEL.COLUMN", multiple=True, help="Replace known values of this column.")
@click.option("--yes", is_flag=True, help="With --reparent: do not ask.")
@json_option
@click.pass_context
def register(ctx: click.Context, **said: Any) -> None:
    """Register a sheet: csv, tsv, xlsx, PED or phenopackets; or one patient, specimen or assay.

    All of it is written, or nothing. Blanks are filled in; a known value is replaced only with --update.
    """
    project = opened(ctx)
    asked = _asked(project, said)
    if not said["dry_run"]:
        project.catalog.refuse_archived()
        check_references(project)
    with Reading("reading raw files") as on_bytes:
        if said["dry_run"] or said["reparent"]:
            planned = asked(dry_run=True, foresee=True, on_bytes=on_bytes)
            if said["dry_run"]:
                return _say(planned, said["as_json"], dry_run=True)
            _confirm(planned, said["yes"])
        changes = asked(on_bytes=on_bytes)
        look(project, on_bytes, only_references=changes.as_before is not None)
    _say(changes, said["as_json"])
    if any(changes.new.values()):
        if (life := project.catalog.life()).state == "complete":
            way = f"`ct projects set {project.id} active --reason TEXT`, if it goes on growing"
            click.echo(f"{project.id} is {life.words}; it was written nevertheless. {way}", err=True)
        from ctcore.dagster_home import launch

        launch(project, "sync")


def _asked(project: Project, said: dict[str, Any]) -> Callable[..., Changes]:
    """The call that was asked for: a sheet, or one entity."""
    allowed = Allowed(frozenset(said["reparent"]), frozenset(said["update"]))
    if said["what"] in ENTITY_LEVELS:
        if not said["name"]:
            raise Usage(f"which {said['what']}? `ct register {said['what']} ID`")
        if said["names"] or said["ignore"] or said["tab"]:
            raise Usage("--map, --ignore and --tab are for sheets")
        values, more = pairs("--set", said["values"]), {"parent": said["parent"], "allowed": allowed}
        return partial(register_entity, project, said["what"], said["name"], values=values, **more)
    if said["name"] or said["parent"] or said["values"]:
        raise Usage(
            "`ct register SHEET`, or `ct register patient|specimen|assay ID [--parent ID] [--set COLUMN=VALUE]`"
        )
    path = Path(said["what"]) if said["what"] else known_sheet(project)
    if path is None:
        raise Usage('which sheet? `ct register SHEET`, or say [project] sheet = "…" in ct.toml')
    options = project.settings.reading.also(pairs("--map", said["names"]), said["ignore"], said["tab"])
    return partial(register_sheet, project, path, allowed, options=options)


def pairs(option: str, said: Sequence[str], blank: bool = False) -> dict[str, str]:
    """Names with their values; `blank`: there may be none."""
    pairs: dict[str, str] = {}
    for one in said:
        name, equals, value = one.partition("=")
        if not equals or not name.strip() or not (blank or value.strip()):
            example = '--map "Sample Name=specimen_id"' if option == "--map" else f"{option} sex=F"
            raise Usage(f"{option} {one}: a name, = and a value are expected, as in {example}")
        if name.strip() in pairs:
            raise Usage(f"{option} {name.strip()} was said twice; leave one of them out")
        pairs[name.strip()] = value.strip()
    return pairs


def _confirm(planned: Changes, yes: bool) -> None:
    """Whoever moves somebody sees first what is not true any more."""
    _say_consequences(planned)
    for level in ENTITY_LEVELS:
        for name, said in list(planned.changed[level].items())[:SHOWN]:
            click.echo(f"{level} {name}: {'; '.join(said)}", err=True)
    if yes:
        return
    if not is_terminal(sys.stdin):
        raise Usage("nothing was written; add --yes to move it, or --dry-run to look")
    click.confirm("move it?", abort=True, err=True)


def _say(changes: Changes, as_json: bool, dry_run: bool = False) -> None:
    if as_json:
        echo_json({"dry_run": dry_run, **asdict(changes)})
        return
    rows = [
        (level, len(changes.new[level]), len(changes.changed[level]), changes.unchanged[level])
        for level in ENTITY_LEVELS
    ]
    table(("level", "new", "changed", "unchanged"), rows)
    for level in ENTITY_LEVELS:
        for name, said in list(changes.changed[level].items())[:SHOWN]:
            click.echo(f"{level} {name}: {'; '.join(said)}", err=True)
    for said in changes.schema:
        click.echo(f"ct.toml: {said}", err=True)
    for said in changes.notes:
        click.echo(said, err=True)
    if changes.as_before is not None:
        since, files = changes.as_before
        said = f"{files} raw file{'s' * (files != 1)} (by size and time)"
        click.echo(f"not read again: sheet, ct.toml, catalog and {said} are as they were at {since}", err=True)
    if dry_run:
        _say_consequences(changes)
        click.echo("nothing was written (--dry-run)", err=True)


def _say_consequences(changes: Changes) -> None:
    for one in changes.consequences:
        click.echo(f"{one.step}: {one.stale} would be stale, {one.new} would be new", err=True)
