"""`ct qc`: what is said of the quality of patients, specimens and assays; who is not used because of it."""

from pathlib import Path
from typing import Any

import click

from ctcore.errors import Usage
from ctcore.governance.qc import (
    Choice,
    QcAct,
    QcEntry,
    add,
    entities_where,
    history,
    read_qc_sheet,
    resolve,
    scope_of,
    statuses,
)
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.project import Project
from ctcore.terminal.place import Place
from ctcore.terminal.render import echo_json, json_option, open_project, table

SHOWN = 20
_where = click.option(
    "--where", metavar="LEVEL.COLUMN=VALUE", help="All entities with this value, such as a flow cell's assays."
)
_analysis = click.option("--analysis", metavar="STEP", help="For this step only; other steps still use the entity.")
_reason = click.option(
    "--reason", metavar="TEXT", default="", help="The reason; goes on record with your name. Required."
)


@click.group()
def qc() -> None:
    """Record and resolve the quality of patients, specimens and assays: pass, warn, censored, fail. Nothing is
    overwritten.
    """


@qc.command("add")
@click.argument("what", nargs=-1, metavar="[LEVEL/ID]... [KIND]")
@_reason
@_where
@_analysis
@click.option("--source", default="manual", show_default=True, help="The source of the QC.")
@click.option(
    "--from",
    "sheet",
    type=Place(path_type=Path),
    help="A sheet with the columns level, id, kind, reason[, analysis].",
)
@json_option
@click.pass_context
def add_(
    ctx: click.Context,
    what: tuple[str, ...],
    reason: str,
    where: str | None,
    analysis: str | None,
    source: str,
    sheet: Path | None,
    as_json: bool,
) -> None:
    """Record a QC event: LEVEL/ID KIND, a batch (--where), or a sheet (--from)."""
    project = open_project(ctx)
    if sheet is not None:
        if what or where:
            raise Usage("--from takes everything from the sheet; leave out entities and kind")
        sayings, named = read_qc_sheet(sheet)
        found = add(project, sayings, source=named or source, scope=f"sheet {project.recorded(sheet)}")
    else:
        *names, kind = what or ("",)
        if not kind or "/" in kind or bool(names) == bool(where):
            raise Usage("name an entity and a kind: `ct qc add assay/A1 contamination --reason …`, or --where … KIND")
        level, some = entities_where(project, where) if where else ("", [])
        whom = [(level, who) for who in some] or [_named(name) for name in names]
        sayings = [QcEntry(at, who, kind, reason, analysis) for at, who in whom]
        found = add(project, sayings, source=source, scope=scope_of(where) if where else "by name")
    _tell(project, found, "said of", as_json)


@qc.command("resolve")
@click.argument("what", nargs=-1, metavar="[LEVEL/ID] [KIND]")
@_reason
@_where
@_analysis
@click.option("--event", type=int, metavar="N", help="The event with this number.")
@click.option("--act", type=int, metavar="N", help="All events of one `ct qc add`, by the number that it printed.")
@json_option
@click.pass_context
def resolve_(
    ctx: click.Context,
    what: tuple[str, ...],
    reason: str,
    where: str | None,
    analysis: str | None,
    event: int | None,
    act: int | None,
    as_json: bool,
) -> None:
    """Resolve QC events; the history keeps them. A batch resolves only its own events."""
    names, kinds = [one for one in what if "/" in one], [one for one in what if "/" not in one]
    if len(names) > 1 or len(kinds) > 1 or sum(map(bool, (names, where, event, act))) != 1:
        raise Usage("which event? LEVEL/ID [KIND], --where LEVEL.COLUMN=VALUE [KIND], --event N or --act N")
    project = open_project(ctx)
    choice = Choice(
        entity=_named(names[0]) if names else None,
        kind=kinds[0] if kinds else None,
        step=analysis,
        scope=scope_of(where) if where else None,
        event=event,
        act=act,
    )
    _tell(project, resolve(project, choice, reason), "resolved for", as_json)


def _named(text: str) -> tuple[str, str]:
    level, cut, who = text.partition("/")
    if not cut or level not in ENTITY_LEVELS:
        raise Usage(f"{text!r}: write patient/ID, specimen/ID or assay/ID")
    return level, who


def _tell(project: Project, said: QcAct, verb: str, as_json: bool) -> None:
    if as_json:
        echo_json({"act": said.act, "events": [{"event": number, "entity": name} for number, name in said.events]})
    else:
        table(("event", "entity"), said.events[:SHOWN])
    if len(said.events) > SHOWN and not as_json:
        click.echo(f"… and {len(said.events) - SHOWN} more (--json)", err=True)
    already = f"; {said.already} had it already" if said.already else ""
    act = f" (act {said.act})" if said.act is not None else ""
    click.echo(f"{verb} {len(said.events)} by {project.catalog.actor}{act}{already}", err=True)


@qc.command("list")
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """List all entities with open QC events."""
    found = statuses(open_project(ctx))
    if as_json:
        fields = ("id", "kind", "status", "step", "reason", "source", "scope", "at", "actor")
        rows: list[Any] = [[{name: getattr(row, name) for name in fields} for row in some] for _, _, some in found]
        listed = zip(found, rows, strict=True)
        echo_json([{"entity": name, "status": status, "events": some} for (name, status, _), some in listed])
        return
    lines = [
        (name, status, row.id, row.kind, row.step or "all", row.at[:10], row.actor, row.scope, row.reason)
        for name, status, some in found
        for row in some
    ]
    table(("entity", "status", "event", "kind", "for", "day", "by", "scope", "reason"), lines)


@qc.command("history")
@click.argument("who", required=False, metavar="[LEVEL/ID]")
@json_option
@click.pass_context
def history_(ctx: click.Context, who: str | None, as_json: bool) -> None:
    """Show all QC events, or those of one entity, and how each ended."""
    found = history(open_project(ctx), _named(who) if who else None)
    if as_json:
        echo_json(found)
        return
    rows = [
        (
            one["event"],
            f"{one['level']}/{one['id']}",
            one["kind"],
            one["status"],
            one["step"] or "all",
            f"{one['at'][:10]} by {one['actor']} ({one['scope']}): {one['reason']}",
            f"{one['resolved_at'][:10]} by {one['resolved_by']}: {one['resolved_reason']}"
            if one["resolved_at"]
            else "",
        )
        for one in found
    ]
    table(("event", "entity", "kind", "status", "for", "said", "resolved"), rows)
