"""`ct purge`: the end of a person's consent. Says what would go; removes it where that is confirmed; proves it."""

import sys
from functools import partial
from typing import Any

import click

from ctcore.errors import ProjectError
from ctcore.model.levels import count_text
from ctcore.project import Project
from ctcore.projects.dagster_home import SETTINGS, launch
from ctcore.projects.missing_store import refuse_without_store
from ctcore.terminal.render import FOUND, ByteCounter, echo_json, is_terminal, json_option, open_project, size, table

_COLUMNS = ("action", "what", "number", "size", "why")


@click.command()
@click.argument("patient", required=False)
@click.option("--reason", metavar="TEXT", help="The reason, such as a request for erasure. Goes on record.")
@click.option("--confirm", metavar="PATIENT", help="Repeat the ID. Without it, nothing is removed.")
@click.option("--raw", is_flag=True, help="Also remove raw files inside the project.")
@click.option("--check", "number", type=int, metavar="N", help="Check that purge N is complete. Reads the whole store.")
@click.option("--quick", is_flag=True, help="With --check: read only files whose size, times or inode changed.")
@click.option("--list", "every", is_flag=True, help="List all purges.")
@json_option
@click.pass_context
def purge(
    ctx: click.Context,
    patient: str | None,
    reason: str | None,
    confirm: str | None,
    raw: bool,
    number: int | None,
    quick: bool,
    every: bool,
    as_json: bool,
) -> None:
    """Remove everything that contains a PATIENT who revoked consent, and nothing else.

    Without --confirm, this is a dry run. Exit code 3 if --check has findings.
    """
    if (patient is not None) + (number is not None) + every != 1:
        raise click.UsageError("name a PATIENT, or --check N, or --list")
    project = open_project(ctx)
    if every:
        _list(project, as_json)
        return
    refuse_without_store(project)
    if number is not None:
        ctx.exit(_check(project, number, quick, as_json))
    elif confirm is None:
        _show(project, _bare(patient), raw, as_json)
    else:
        _remove(project, _bare(patient), reason, _bare(confirm), raw, as_json)


def _bare(patient: str | None) -> str:
    return (patient or "").removeprefix("patient/")


def _show(project: Project, patient: str, raw: bool, as_json: bool) -> None:
    """The dry run."""
    from ctcore.deletion.copies import command
    from ctcore.deletion.purge import pending_purges
    from ctcore.deletion.purge_plan import REMOVING, plan

    found, begun = plan(project, patient, raw), pending_purges(project)
    if as_json:
        echo_json({"patient": patient, "rows": [vars(row) for row in found.rows], "unfinished": [r.id for r in begun]})
        return
    if found.rows:
        table(_COLUMNS, [(row.action, row.what, row.number, _bytes(row.size), row.why) for row in found.rows])
    for row in begun:
        click.echo(f"purge {row.id} of {row.patient} was cut off; it is finished first", err=True)
    if not (begun or any(row.action in REMOVING for row in found.rows)):
        click.echo(f"nothing that contains patient {patient} is left in the store and the catalog", err=True)
        return
    click.echo(f"nothing was removed; {command(patient, raw)} does it, for good", err=True)


def _remove(project: Project, patient: str, reason: str | None, confirm: str, raw: bool, as_json: bool) -> None:
    from ctcore.deletion.purge import remove

    has_dagster = (project.dagster_home / SETTINGS).is_file()
    done = remove(project, patient, reason or "", confirm, raw, partial(_wipe, project) if has_dagster else None)
    if as_json:
        echo_json([vars(one) for one in done])
    for one in done:
        where = f"{count_text(one.paths, 'path')}, {size(one.size)}"
        click.echo(f"purge {one.number} of patient {one.patient}: removed {where}", err=True)
    if not done:
        click.echo(f"nothing that contains patient {patient} was left", err=True)
    else:
        click.echo(f"`ct run` makes again what is missing; `ct purge --check {done[-1].number}` proves it", err=True)


def _wipe(project: Project, after: int) -> None:
    """Have it taken out of Dagster's storage too."""
    try:
        left = "the sensor `integrity` takes it out" if launch(project, "wipe", str(after)) else ""
    except ProjectError as error:
        left = f"{error}; then the sensor `integrity` takes it out"
    if left:
        click.echo(f"Dagster's storage still tells of it; {left}", err=True)


def _check(project: Project, number: int, quick: bool, as_json: bool) -> int:
    from ctcore.deletion.proof import check

    with ByteCounter("reading the store") as on_bytes:
        found = check(project, number, deep=not quick, on_bytes=on_bytes)
    if as_json:
        echo_json({**vars(found), "findings": [{"where": where, "problem": said} for where, said in found.findings]})
    elif found.findings:
        table(("where", "problem"), found.findings)
    click.echo(
        f"purge {number} of patient {found.patient}: {count_text(found.gone, 'making')} {_are(found.gone)} gone; "
        f"{count_text(found.kept, 'other')} {_are(found.kept)} there ({found.bytes} bytes read); "
        f"{count_text(len(found.findings), 'finding')}",
        err=True,
    )
    return FOUND if found.findings else 0


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _list(project: Project, as_json: bool) -> None:
    from ctcore.deletion.purge import list_purges

    rows: list[Any] = list_purges(project)
    if as_json:
        echo_json(rows)
        return
    columns = ("id", "patient", "at", "ended_at", "makings", "size", "actor", "reason")
    table(columns, [[one[name] for name in columns] for one in rows])


def _bytes(number: int | None) -> str | int | None:
    """In words for people, as a number for programs."""
    return size(number) if number is not None and is_terminal(sys.stdout) else number
