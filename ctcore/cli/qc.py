"""`ct qc`: what is said of the quality of patients, specimens and assays; who is not used because of it."""

from pathlib import Path
from typing import Any

import click

from ctcore.cli.render import echo_json, json_option, opened, table
from ctcore.errors import Usage
from ctcore.project import Project
from ctcore.qc import Choice, Said, Saying, add, history, read_sayings, resolve, scope_of, statuses, those
from ctcore.step import ENTITY_LEVELS

SHOWN = 20
_where = click.option("--where", metavar="LEVEL.COLUMN=VALUE", help="Everybody with this value: a flow cell's assays.")
_analysis = click.option("--analysis", metavar="STEP", help="For this step only; other steps go on using it.")
_reason = click.option("--reason", metavar="TEXT", default="", help="Why; it is kept beside your name. Required.")


@click.group()
def qc() -> None:
    """QC of patients, specimens and assays: pass, warn, censored, fail. Nothing is overwritten."""


@qc.command("add")
@click.argument("what", nargs=-1, metavar="[LEVEL/ID]... [KIND]")
@_reason
@_where
@_analysis
@click.option("--source", default="manual", show_default=True, help="Where it comes from.")
@click.option("--from", "sheet", type=click.Path(path_type=Path), help="A sheet: level, id, kind, reason[, analysis].")
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
    """Say something of the quality of somebody: LEVEL/ID KIND, a batch (--where), or a sheet (--from)."""
    project = opened(ctx)
    if sheet is not None:
        if what or where:
            raise Usage("--from has all of it in the sheet; name nobody and no kind besides")
        sayings, named = read_sayings(sheet)
        found = add(project, sayings, source=named or source, scope=f"sheet {project.recorded(sheet)}")
    else:
        *names, kind = what or ("",)
        if not kind or "/" in kind or bool(names) == bool(where):
            raise Usage("of whom, and what? `ct qc add assay/A1 contamination --reason …`, or --where … KIND")
        level, some = those(project, where) if where else ("", [])
        whom = [(level, who) for who in some] or [_named(name) for name in names]
        sayings = [Saying(at, who, kind, reason, analysis) for at, who in whom]
        found = add(project, sayings, source=source, scope=scope_of(where) if where else "by name")
    _tell(project, found, "said of", as_json)


@qc.command("resolve")
@click.argument("what", nargs=-1, metavar="[LEVEL/ID] [KIND]")
@_reason
@_where
@_analysis
@click.option("--event", type=int, metavar="N", help="This event.")
@click.option("--act", type=int, metavar="N", help="All that was said at once: the number `ct qc add` gave.")
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
    """End what was said: the history stays. A batch ends only what was said of it as a batch."""
    names, kinds = [one for one in what if "/" in one], [one for one in what if "/" not in one]
    if len(names) > 1 or len(kinds) > 1 or sum(map(bool, (names, where, event, act))) != 1:
        raise Usage("which event? LEVEL/ID [KIND], --where LEVEL.COLUMN=VALUE [KIND], --event N or --act N")
    project = opened(ctx)
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


def _tell(project: Project, said: Said, verb: str, as_json: bool) -> None:
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
    """Everybody of whom something is said that is not resolved."""
    found = statuses(opened(ctx))
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
    """All that was ever said, of one or of all, with how it ended."""
    found = history(opened(ctx), _named(who) if who else None)
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
