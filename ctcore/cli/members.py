"""`ct cohort`: who is in it, today and when things were made; what belongs together, and who has all of it."""

from typing import Any

import click

from ctcore.cli.render import echo_json, excluded_options, json_option, opened, table
from ctcore.disclosure import asked
from ctcore.errors import Usage
from ctcore.pairs import STATUSES, Readiness, Status, readiness
from ctcore.project import Project
from ctcore.reading.gate import Gate, level_names
from ctcore.reading.membership import memberships
from ctcore.staleness import evaluate
from ctcore.step import ENTITY_LEVELS


@click.command()
@click.argument("name", required=False)
@click.option("--pairing", metavar="NAME", help="What belongs together, by [pairings.NAME] of ct.toml.")
@click.option("--complete-only", "only", flag_value="complete", default=None, help="Of a pairing, only these rows.")
@click.option("--incomplete-only", "only", flag_value="incomplete", help="Likewise.")
@click.option("--broken-only", "only", flag_value="broken", help="Likewise.")
@click.option("--singleton-only", "only", flag_value="singleton", help="Likewise.")
@excluded_options
@json_option
@click.pass_context
def cohort(
    ctx: click.Context,
    name: str | None,
    pairing: str | None,
    only: Status | None,
    excluded: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    """Members today, and when each artifact was made; with --pairing, who has all that belongs together."""
    project = opened(ctx)
    if name is not None and (pairing or name not in project.settings.cohorts):
        raise Usage(f"cohort {name!r}: cohorts are {', '.join(project.settings.cohorts)}; --pairing is of everybody")
    if only and not pairing:
        raise Usage(f"--{only}-only goes with --pairing; declared: {', '.join(project.settings.pairings) or 'none'}")
    everybody = asked(project, excluded, reason, "cohort", f"pairing {pairing}" if pairing else name or "all cohorts")
    if pairing:
        found = readiness(project, pairing, everybody)
        _paired_json(found, only) if as_json else _paired(found, only)
    click.echo(_members(project, name, everybody, as_json, silent=bool(pairing)), err=True)


def _paired(found: Readiness, only: Status | None) -> None:
    columns = (found.pairing.within, *found.values, "status", "reason")
    rows = [
        (
            row.who,
            *(", ".join([*cell.usable, *(f"({one})" for one in cell.barred)]) for cell in row.cells.values()),
            row.status,
            row.reason,
        )
        for row in found.rows
        if only in (None, row.status)
    ]
    table(columns, rows, title=f"{found.pairing.name}: {found.pairing.by}")
    said = ", ".join(f"{n} {status}" for status, n in found.counts.items())
    enough = f"; {found.enough} have {found.pairing.require} or more" if found.pairing.require else ""
    click.echo(f"{said}{enough}; {found.without} have none of it (in brackets: may not be used)", err=True)


def _paired_json(found: Readiness, only: Status | None) -> None:
    rows = [
        {
            found.pairing.within: row.who,
            "status": row.status,
            "values": {
                value: {"usable": cell.usable, "not_usable": cell.barred, "passes": cell.passes}
                for value, cell in row.cells.items()
            },
            "missing": [value for value, cell in row.cells.items() if not cell.is_there],
            "passing": row.passing,
            "enough": row.enough,
            "reason": row.reason,
        }
        for row in found.rows
        if only in (None, row.status)
    ]
    counts = {**{status: found.counts[status] for status in STATUSES}, "none": found.without, "enough": found.enough}
    echo_json({"pairing": found.pairing.name, "by": found.pairing.by, "counts": counts, "rows": rows})


def _members(project: Project, name: str | None, everybody: bool, as_json: bool, silent: bool) -> str:
    """Returns who was left out."""
    verdicts = None if silent else evaluate(project)
    with project.catalog.read() as connection:
        gate = Gate.of(project, connection, everybody)
        audit = gate.audit
        if verdicts is None:
            return audit
        found = list(memberships(gate, verdicts, name))
    usable = {level_names(one): int(gate.usable(one).sum()) for one in ENTITY_LEVELS}
    if as_json:
        listed: list[dict[str, Any]] = [dict(vars(one)) for one in found]
        echo_json({"usable": usable, "left_out": gate.left_out, "artifacts": listed})
        return audit
    table(
        ("level", "usable", "left out"), [(one, usable[level_names(one)], gate.left_out[one]) for one in ENTITY_LEVELS]
    )
    click.echo()
    columns = ("cohort", "artifact", "of", "state", "members then", "today", "difference", "roles")
    table(columns, [(o.cohort, o.step, f"{o.level}s", o.state, o.then, o.now, o.said, o.roles_said) for o in found])
    return audit
