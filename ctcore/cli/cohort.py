"""`ct register` and `ct status`: who is in the cohort, and how far everything is."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from ctcore.cli.render import FOUND, MARK, Reading, echo_json, excluded_options, is_terminal, json_option, opened, table
from ctcore.comparison import Allowed, Changes
from ctcore.disclosure import asked
from ctcore.errors import Usage
from ctcore.explain import Matrix, cohorts_in_full, matrix
from ctcore.files import check_references, look
from ctcore.project import Project
from ctcore.register import known_sheet, register_entity
from ctcore.register import register as register_sheet
from ctcore.step import ENTITY_LEVELS
from ctcore.veil import veil

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
        look(project, on_bytes)
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


def pairs(option: str, said: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for one in said:
        name, equals, value = one.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise Usage(f"{option} {one}: a name, = and a value are expected, as in {option} sex=F")
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
    if dry_run:
        _say_consequences(changes)
        click.echo("nothing was written (--dry-run)", err=True)


def _say_consequences(changes: Changes) -> None:
    for one in changes.consequences:
        click.echo(f"{one.step}: {one.stale} would be stale, {one.new} would be new", err=True)


@click.command()
@click.option("--all", "everything", is_flag=True, help="Show every entity, not only the first 40 of a level.")
@excluded_options
@json_option
@click.pass_context
def status(ctx: click.Context, everything: bool, excluded: bool, reason: str | None, as_json: bool) -> None:
    """The completeness matrix: entities by steps. Exit code 3 where something is not fresh."""
    project = opened(ctx)
    if (life := project.catalog.life()).state != "active":
        click.echo(f"{project.id} is {life.words}", err=True)
    seen = None if asked(project, excluded, reason, "status") else veil(project)
    tables = matrix(project, None if everything or as_json else 40, seen)
    if as_json:
        echo_json(
            {
                one.level: {
                    "steps": one.steps,
                    "counts": one.counts,
                    "accepted": {name: sorted(some) for name, some in one.accepted.items() if some},
                    "entities": {who: dict(zip(one.steps, states, strict=True)) for _, who, states in one.rows},
                    **(cohorts_in_full(project, seen) if one.level == "cohort" else {}),
                }
                for one in tables
            }
        )
    else:
        for one in tables:
            _matrix(one)
    if seen:
        click.echo(seen.words, err=True)
    open_ = sum(
        n
        for one in tables
        for counts in one.counts.values()
        for state, n in counts.items()
        if state not in ("fresh", "excluded")
    )
    ctx.exit(FOUND if open_ else 0)


def _matrix(one: Matrix) -> None:
    above = {"assay": "specimen", "specimen": "patient"}.get(one.level)
    columns = [*([above] if above else []), one.level, *one.steps]
    rows = [[*([parent] if above else []), who, *_marked(one, who, states)] for parent, who, states in one.rows]
    total = [_share(one.counts[name]) for name in one.steps]
    rows.append([*([""] if above else []), "fresh", *total])
    table(columns, rows, title=f"{one.level}s")
    if any(one.accepted.values()):
        click.echo(f"{MARK}: fresh because somebody accepted what differs; `ct why NODE` says who and why", err=True)
    if one.hidden:
        click.echo(f"… and {one.hidden} more {one.level}s (--all)", err=True)
    click.echo()


def _marked(one: Matrix, who: str, states: Sequence[str]) -> list[str]:
    return [
        f"{state}{MARK}" if who in one.accepted[name] else state for name, state in zip(one.steps, states, strict=True)
    ]


def _share(counts: dict[str, int]) -> str:
    return f"{counts['fresh']}/{sum(n for state, n in counts.items() if state != 'excluded')}"
