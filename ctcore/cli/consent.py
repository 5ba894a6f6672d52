"""`ct consent`: what patients have agreed to; who is not used for want of it."""

from pathlib import Path

import click

from ctcore.cli.render import echo_json, json_option, opened, table
from ctcore.consent import STATUSES, Record, Statement, current, history, restore, set_consent, set_consents
from ctcore.consentsheet import read_consents
from ctcore.errors import Usage

_COLUMNS = ("patient", "status", "uses", "dated", "until", "form", "by", "reason")


@click.group()
def consent() -> None:
    """Consent of patients: full, limited to named uses, pending, revoked, withdrawn, expired."""


@consent.command("set")
@click.argument("what", nargs=-1, metavar="PATIENT... STATUS")
@click.option(
    "--sheet",
    type=click.Path(path_type=Path),
    help="csv, tsv, xlsx: patient, status[, uses, date, until, form, reason].",
)
@click.option(
    "--use", "uses", multiple=True, metavar="USE", help="What a limited consent is limited to; several times."
)
@click.option("--date", "dated", metavar="YYYY-MM-DD", help="The day of the statement (default: today).")
@click.option("--until", metavar="YYYY-MM-DD", help="The day on which it ends by itself; '' takes it away.")
@click.option("--form", metavar="TEXT", help="Where it stands: consent form 4, withdrawal form 12.")
@click.option("--reason", metavar="TEXT", default="", help="Anything more.")
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
    """Write what patients have said. A revocation acts at once, on all that is below them.

    STATUS is full, limited, pending, revoked, withdrawn or expired.
    """
    project = opened(ctx)
    if sheet is not None:
        if what or uses or dated or until is not None or form is not None or reason:
            raise Usage("--sheet has all of it in the sheet; name nobody, no status and no option besides")
        wrote, already = set_consents(project, str(sheet), read_consents(sheet))
        more = f"; {already} stood already" if already else ""
        click.echo(f"consent of {wrote} patients by {project.catalog.actor}{more}", err=True)
        return
    *patients, status = what or ("",)
    if not patients:
        raise Usage(f"whose consent, and which? `ct consent set PATIENT… {'|'.join(STATUSES)}`, or --sheet FILE")
    names = [name.removeprefix("patient/") for name in patients]
    set_consent(project, names, Statement(status, uses, dated, until, form, reason))
    many = f"{len(names)} patients" if len(names) > 1 else f"patient {names[0]}"
    click.echo(f"consent of {many}: {status}, by {project.catalog.actor}", err=True)


@consent.command("restore")
@click.argument("patient")
@click.option("--authority", metavar="TEXT", required=True, help="Who decided it: an ethics committee, the patient.")
@click.option("--reference", metavar="TEXT", required=True, help="The number of the decision.")
@click.option("--date", "dated", metavar="YYYY-MM-DD", required=True, help="Its day.")
@click.option("--confirmed-by", "people", multiple=True, metavar="NAME", help="Twice: two different people.")
@click.pass_context
def restore_(
    ctx: click.Context, patient: str, authority: str, reference: str, dated: str, people: tuple[str, ...]
) -> None:
    """Reverse a revocation: the consent of before holds again, with its limits and its end."""
    name = patient.removeprefix("patient/")
    before = restore(opened(ctx), name, Record(authority, reference, dated, people))
    click.echo(f"consent of patient {name}: {before.status if before else 'full'} again", err=True)


@consent.command("list")
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """What holds today, of every patient of whom something was written."""
    _print(current(opened(ctx)), as_json)


@consent.command("history")
@click.argument("patient", required=False)
@json_option
@click.pass_context
def history_(ctx: click.Context, patient: str | None, as_json: bool) -> None:
    """All that was ever said, of one patient or of all."""
    _print(history(opened(ctx), patient.removeprefix("patient/") if patient else None), as_json)


def _print(rows: list[dict[str, object]], as_json: bool) -> None:
    if as_json:
        echo_json(rows)
        return
    said = [{**row, "uses": ", ".join(map(str, row["uses"])), "by": row["actor"]} for row in rows]  # type: ignore[call-overload]
    table(_COLUMNS, [[one[name] for name in _COLUMNS] for one in said])
