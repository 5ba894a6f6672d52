"""`ct consent`: what patients have agreed to; who is not used for want of it."""

from pathlib import Path

import click

from ctcore.errors import Usage
from ctcore.governance.consent import STATUSES, Record, Statement, current, history, restore, set_consent, set_consents
from ctcore.governance.consent_sheet import read_consents
from ctcore.model.levels import count_text
from ctcore.terminal.place import Place
from ctcore.terminal.render import echo_json, json_option, open_project, table

_COLUMNS = ("patient", "status", "uses", "dated", "until", "form", "by", "reason")


@click.group()
def consent() -> None:
    """Record patients' consent: full, limited to named uses, pending, revoked, withdrawn, expired."""


@consent.command("set")
@click.argument("what", nargs=-1, metavar="PATIENT... STATUS")
@click.option(
    "--sheet",
    type=Place(path_type=Path),
    help="A sheet with the columns patient, status[, uses, date, until, form, reason].",
)
@click.option("--use", "uses", multiple=True, metavar="USE", help="A use that a limited consent allows; repeatable.")
@click.option("--date", "dated", metavar="YYYY-MM-DD", help="The day of the statement (default: today).")
@click.option("--until", metavar="YYYY-MM-DD", help="The day on which the consent ends; '' removes it.")
@click.option("--form", metavar="TEXT", help='The document, such as "withdrawal form 12".')
@click.option("--reason", metavar="TEXT", default="", help="A note.")
@click.pass_context
def set_(
    ctx: click.Context,
    what: tuple[str, ...],
    sheet: Path | None,
    uses: tuple[str, ...],
    dated: str | None,
    until: str | None,
    form: str | None,
    reason: str,
) -> None:
    """Record consents. A revocation takes effect at once, for everything below the patient.

    STATUS is full, limited, pending, revoked, withdrawn or expired.
    """
    project = open_project(ctx)
    if sheet is not None:
        if what or uses or dated or until is not None or form is not None or reason:
            raise Usage("--sheet takes everything from the sheet; leave out patients, status and other options")
        lines = read_consents(sheet)
        wrote, already = set_consents(project, str(sheet), lines)
        more = f"; {already} stood already" if already else ""
        click.echo(f"consent of {count_text(wrote, 'patient')} by {project.catalog.actor}{more}", err=True)
        if over := sum(line.statement.is_over for line in lines):
            click.echo(
                f"{count_text(over, 'row')} of the sheet: until a day that is over, so expired already", err=True
            )
        return
    *patients, status = what or ("",)
    if not patients:
        raise Usage(f"whose consent, and which? `ct consent set PATIENT… {'|'.join(STATUSES)}`, or --sheet FILE")
    names = list(dict.fromkeys(name.removeprefix("patient/") for name in patients))
    said = Statement(status, uses, dated, until, form, reason)
    set_consent(project, names, said)
    many = f"{len(names)} patients" if len(names) > 1 else f"patient {names[0]}"
    click.echo(f"consent of {many}: {status}, by {project.catalog.actor}", err=True)
    if said.is_over:
        click.echo(f"--until {until} is over: it is expired already, and nothing of theirs is used", err=True)


@consent.command("restore")
@click.argument("patient")
@click.option(
    "--authority", metavar="TEXT", required=True, help="Who decided, such as the ethics committee or the patient."
)
@click.option("--reference", metavar="TEXT", required=True, help="The number of the decision.")
@click.option("--date", "dated", metavar="YYYY-MM-DD", required=True, help="The day of the decision.")
@click.option(
    "--confirmed-by", "people", multiple=True, metavar="NAME", help="Who confirms it; give two different people."
)
@click.pass_context
def restore_(
    ctx: click.Context, patient: str, authority: str, reference: str, dated: str, people: tuple[str, ...]
) -> None:
    """Reverse a revocation: the consent before it holds again, with its limits and its end."""
    name = patient.removeprefix("patient/")
    before = restore(open_project(ctx), name, Record(authority, reference, dated, people))
    click.echo(f"consent of patient {name}: {before.status if before else 'full'} again", err=True)


@consent.command("list")
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """List the current consent of each patient on record."""
    _print(current(open_project(ctx)), as_json)


@consent.command("history")
@click.argument("patient", required=False)
@json_option
@click.pass_context
def history_(ctx: click.Context, patient: str | None, as_json: bool) -> None:
    """Show all consents, or those of one patient."""
    _print(history(open_project(ctx), patient.removeprefix("patient/") if patient else None), as_json)


def _print(rows: list[dict[str, object]], as_json: bool) -> None:
    if as_json:
        echo_json(rows)
        return
    said = [{**row, "uses": ", ".join(map(str, row["uses"])), "by": row["actor"]} for row in rows]  # type: ignore[call-overload]
    table(_COLUMNS, [[one[name] for name in _COLUMNS] for one in said])
