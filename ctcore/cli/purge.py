"""`ct purge`: the end of a person's consent. Says what would go; removes it where that is confirmed; proves it."""

import sys
from typing import Any

import click

from ctcore.cli.render import FOUND, Reading, echo_json, is_terminal, json_option, opened, size, table
from ctcore.dagster_home import SETTINGS, launch
from ctcore.looking import refuse_without_store
from ctcore.project import Project

_COLUMNS = ("action", "what", "number", "size", "why")


@click.command()
@click.argument("patient", required=False)
@click.option("--reason", metavar="TEXT", help="Why: the request for erasure, say. Goes on record.")
@click.option("--confirm", metavar="PATIENT", help="The ID again. Without it nothing is removed.")
@click.option("--raw", is_flag=True, help="Also raw files that lie inside the project.")
@click.option("--check", "number", type=int, metavar="N", help="Prove what purge N did; reads the whole store.")
@click.option("--quick", is_flag=True, help="With --check: read only files whose size, times or inode differ.")
@click.option("--list", "every", is_flag=True, help="All purges so far.")
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
    """Remove all that contains a PATIENT who has revoked their consent, and nothing else.

    Without --confirm it is a dry run. Exit code 3 where --check has findings.
    """
    if (patient is not None) + (number is not None) + every != 1:
        raise click.UsageError("name a PATIENT, or --check N, or --list")
    project = opened(ctx)
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
    from ctcore.purging.planned import plan
    from ctcore.purging.removal import pending

    found, begun = plan(project, patient, raw), pending(project)
    if as_json:
        echo_json({"patient": patient, "rows": [vars(row) for row in found.rows], "unfinished": [r.id for r in begun]})
        return
    if found.rows:
        table(_COLUMNS, [(row.action, row.what, row.number, _bytes(row.size), row.why) for row in found.rows])
    for row in begun:
        click.echo(f"purge {row.id} of {row.patient} was cut off; it is finished first", err=True)
    if not (found or begun):
        click.echo(f"nothing that contains patient {patient} is left in the store and the catalog", err=True)
        return
    way = f"`ct purge {patient}{' --raw' * raw} --reason TEXT --confirm {patient}` does it, for good"
    click.echo(f"nothing was removed; {way}", err=True)


def _remove(project: Project, patient: str, reason: str | None, confirm: str, raw: bool, as_json: bool) -> None:
    from ctcore.purging.removal import remove

    done = remove(project, patient, reason or "", confirm, raw)
    has_dagster = (project.dagster_home / SETTINGS).is_file()
    if done and has_dagster and launch(project, "wipe", str(done[0].number - 1)):
        click.echo("Dagster's storage still tells of it; the sensor `integrity` takes it out", err=True)
    if as_json:
        echo_json([vars(one) for one in done])
    for one in done:
        where = f"{one.paths} files and folders, {size(one.size)}"
        click.echo(f"purge {one.number} of patient {one.patient}: removed {where}", err=True)
    if not done:
        click.echo(f"nothing that contains patient {patient} was left", err=True)
    else:
        click.echo(f"`ct run` makes again what is missing; `ct purge --check {done[-1].number}` proves it", err=True)


def _check(project: Project, number: int, quick: bool, as_json: bool) -> int:
    from ctcore.purging.proof import check

    with Reading("reading the store") as on_bytes:
        found = check(project, number, deep=not quick, on_bytes=on_bytes)
    if as_json:
        echo_json({**vars(found), "findings": [{"where": where, "problem": said} for where, said in found.findings]})
    elif found.findings:
        table(("where", "problem"), found.findings)
    click.echo(
        f"purge {number} of patient {found.patient}: {found.gone} makings are gone; {found.kept} others "
        f"are there ({found.bytes} bytes read); {len(found.findings)} findings",
        err=True,
    )
    return FOUND if found.findings else 0


def _list(project: Project, as_json: bool) -> None:
    from ctcore.purging.removal import listed

    rows: list[Any] = listed(project)
    if as_json:
        echo_json(rows)
        return
    columns = ("id", "patient", "at", "ended_at", "makings", "size", "actor", "reason")
    table(columns, [[one[name] for name in columns] for one in rows])


def _bytes(number: int | None) -> str | int | None:
    """In words for people, as a number for programs."""
    return size(number) if number is not None and is_terminal(sys.stdout) else number
