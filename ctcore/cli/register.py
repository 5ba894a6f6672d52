"""`ct register`: who is in the cohort."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from ctcore.errors import Usage
from ctcore.intake.raw_files import check_references, look
from ctcore.intake.register import known_sheet, register_entity
from ctcore.intake.register import register as register_sheet
from ctcore.intake.sheet_diff import AllowedChanges, SheetChanges
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.project import Project
from ctcore.sheet.mapped_values import checked_values
from ctcore.sheet.options import Options
from ctcore.terminal.name_values import name_values, word_values
from ctcore.terminal.render import ByteCounter, echo_json, is_terminal, json_option, open_project, table

SHOWN = 20


@click.command()
@click.argument("what", metavar="[SHEET | LEVEL ID]", required=False)
@click.argument("name", metavar="", required=False)
@click.option("--parent", metavar="ID", help="With LEVEL ID: the patient of a specimen, the specimen of an assay.")
@click.option(
    "--set", "values", metavar="COLUMN=VALUE", multiple=True, help="With LEVEL ID: set a value or a raw file."
)
@click.option("--map", "names", metavar="THEIRS=OURS", multiple=True, help="Map a column name of the sheet to ours.")
@click.option(
    "--make",
    metavar="ID=TEMPLATE",
    multiple=True,
    help="Make the sheet's IDs from other columns, as in 'specimen_id={patient_id}_gDNA'.",
)
@click.option("--ignore", metavar="COLUMN", multiple=True, help="Ignore this column of the sheet.")
@click.option("--blank", metavar="WORD", multiple=True, help="Read cells with this word, such as NA, as blank.")
@click.option(
    "--value",
    "words",
    metavar="COLUMN:WORD=VALUE",
    multiple=True,
    help="Read this word of the sheet as the declared value, as in sex:XX=F.",
)
@click.option(
    "--checksums",
    "--md5",
    "lists",
    metavar="FILE",
    multiple=True,
    help="Verify the sheet's files by this list, such as md5sum.txt.",
)
@click.option("--split", metavar="SIGN", help="Cells with several files have this sign between them, such as ';'.")
@click.option("--tab", metavar="NAME", help="The tab of an .xlsx workbook.")
@click.option("--dry-run", is_flag=True, help="Show what would change and become stale, and write nothing.")
@click.option("--reparent", metavar="ID", multiple=True, help="Move this specimen or assay to the parent in the sheet.")
@click.option("--update", metavar="LEVEL.COLUMN", multiple=True, help="Replace known values of this column.")
@click.option("--yes", is_flag=True, help="With --reparent: do not ask for confirmation.")
@json_option
@click.pass_context
def register(ctx: click.Context, **said: Any) -> None:
    """Register a sheet (csv, tsv, xlsx, PED, phenopackets), or one patient, specimen or assay.

    ct writes the whole sheet or nothing. It fills in blanks; --update replaces known values.
    """
    project = open_project(ctx)
    asked = _asked(project, said)
    if not said["dry_run"]:
        project.catalog.refuse_archived()
        check_references(project)
    with ByteCounter("reading raw files") as on_bytes:
        if said["dry_run"] or said["reparent"]:
            planned = asked(dry_run=True, foresee=True, on_bytes=on_bytes)
            if said["dry_run"]:
                return _say(planned, said["as_json"], dry_run=True)
            _confirm(planned, said["yes"])
        changes = asked(on_bytes=on_bytes)
        look(project, on_bytes, only_references=changes.as_before is not None)
    _say(changes, said["as_json"])
    if any(changes.new.values()):
        if (life := project.catalog.project_state()).state == "complete":
            way = f"`ct projects set {project.id} active --reason TEXT`, if it goes on growing"
            click.echo(f"{project.id} is {life.words}; it was written nevertheless. {way}", err=True)
        from ctcore.projects.dagster_home import launch

        launch(project, "sync")


def _asked(project: Project, said: dict[str, Any]) -> Callable[..., SheetChanges]:
    """The call that was asked for: a sheet, or one entity."""
    allowed = AllowedChanges(frozenset(said["reparent"]), frozenset(said["update"]))
    if said["what"] in ENTITY_LEVELS:
        if not said["name"]:
            raise Usage(f"which {said['what']}? `ct register {said['what']} ID`")
        if any(said[name] for name in ("names", "make", "ignore", "blank", "words", "lists", "split", "tab")):
            raise Usage("--map, --make, --ignore, --blank, --value, --checksums, --split and --tab are for sheets")
        values, more = name_values("--set", said["values"]), {"parent": said["parent"], "allowed": allowed}
        return partial(register_entity, project, said["what"], said["name"], values=values, **more)
    if said["name"] or said["parent"] or said["values"]:
        raise Usage(
            "`ct register SHEET`, or `ct register patient|specimen|assay ID [--parent ID] [--set COLUMN=VALUE]`"
        )
    level, _, name = (said["what"] or "").partition("/")
    if said["what"] == "" or (level in ENTITY_LEVELS and name and not Path(said["what"]).exists()):
        one = f"`ct register {level} {name}`" if name else "`ct register LEVEL ID`"
        raise Usage(f"{said['what']!r} is no sheet; one entity: {one}")
    path = Path(said["what"]) if said["what"] else known_sheet(project)
    if path is None:
        raise Usage('which sheet? `ct register SHEET`, or say [project] sheet = "…" in ct.toml')
    options = project.settings.reading.also(_options(project, said))
    return partial(register_sheet, project, path, allowed, options=options)


def _options(project: Project, said: dict[str, Any]) -> Options:
    """How the sheet is to be read, as the command says."""
    names, made = (name_values(f"--{one}", said[key]) for one, key in (("map", "names"), ("make", "make")))
    values, problems = checked_values(word_values("--value", said["words"]), project.settings.levels)
    if problems:
        raise Usage(f"--value {problems[0]}")
    lists = tuple(map(Path, said["lists"]))
    return Options(names, said["ignore"], said["tab"], made, said["blank"], values, lists, said["split"])


def _confirm(planned: SheetChanges, yes: bool) -> None:
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


def _say(changes: SheetChanges, as_json: bool, dry_run: bool = False) -> None:
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


def _say_consequences(changes: SheetChanges) -> None:
    for one in changes.consequences:
        click.echo(f"{one.step}: {one.stale} would be stale, {one.new} would be new", err=True)
