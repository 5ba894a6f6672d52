"""`ct consent`: what patients have agreed to; who is not used for want of it."""

import click

from ctcore.cli.render import echo_json, json_option, opened, table
from ctcore.consent import STATUSES, Record, Statement, current, history, restore, set_consent

_COLUMNS = ("patient", "status", "uses", "dated", "until", "form", "by", "reason")


@click.group()
def consent() -> None:
    """Consent of patients: full, limited to named uses, pending, revoked, withdrawn, expired."""


@consent.command("set")
@click.argument("patients", nargs=-1, required=True, metavar="PATIENT...")
@click.argument("status", type=click.Choice(STATUSES))
@click.option(
    "--use", "uses", multiple=True, metavar="USE", help="What a limited consent is limited to; several times."
)
@click.option("--date", "dated", metavar="YYYY-MM-DD", help="The day of the statement (default: today).")
@click.option("--until", metavar="YYYY-MM-DD", help="The day on which it ends by itself.")
@click.option("--form", metavar="TEXT", help="Where it stands: consent form 4, withdrawal form 12.")
@click.option("--reason", metavar="TEXT", default="", help="Anything more.")
@click.pass_context
def set_(
    ctx: click.Context,
    patients: tuple[str, ...],
    status: str,
    uses: tuple[str, ...],
    dated: str | None,
    until: str | None,
    form: str | None,
    reason: str,
) -> None:
    """Write what patients have said. A revocation acts at once, on all that is below them."""
    project = opened(ctx)
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
