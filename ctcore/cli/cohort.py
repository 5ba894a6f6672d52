"""`ct cohort`: who is in it, today and when things were made; what belongs together, and who has all of it."""

from typing import Any

import click

from ctcore.cohorts.filters import known_cohort
from ctcore.cohorts.pairings import STATUSES, Readiness, Status, readiness
from ctcore.cohorts.rule_history import record_rules, rule_versions
from ctcore.errors import Usage
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.masked_text import Plain, Words
from ctcore.project import Project
from ctcore.query.cohort_members import memberships
from ctcore.query.disclosure import shows_excluded
from ctcore.query.readable import Gate, level_names
from ctcore.query.readiness import ARTIFACTS, RULES, artifact_rows, pair_columns, pair_rows, rule_rows, rules
from ctcore.staleness.verdicts import evaluate
from ctcore.terminal.render import echo_json, excluded_options, json_option, open_project, table


@click.command()
@click.argument("name", required=False)
@click.option("--pairing", metavar="NAME", help="Judge completeness by [pairings.NAME] of ct.toml.")
@click.option("--for", "step", metavar="STEP", help="With --pairing: judge by who may be used for this step.")
@click.option(
    "--history", "past", is_flag=True, help="List the versions of the cohort's rule, with time, author and size."
)
@click.option(
    "--complete-only", "only", flag_value="complete", default=None, help="With --pairing: only entities with all parts."
)
@click.option(
    "--incomplete-only", "only", flag_value="incomplete", help="With --pairing: only entities that lack a part."
)
@click.option("--broken-only", "only", flag_value="broken", help="With --pairing: only entities with an excluded part.")
@click.option(
    "--singleton-only", "only", flag_value="singleton", help="With --pairing: only entities with exactly one part."
)
@excluded_options
@json_option
@click.pass_context
def cohort(
    ctx: click.Context,
    name: str | None,
    pairing: str | None,
    step: str | None,
    past: bool,
    only: Status | None,
    excluded: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    """Show rules and members, today and at the making of each artifact; with --pairing, the complete and incomplete
    cases.
    """
    project = open_project(ctx)
    if name is not None:
        known_cohort(project, name)
    if (only or step) and not pairing:
        option = f"--{only}-only" if only else "--for"
        raise Usage(f"{option} goes with --pairing; declared: {', '.join(project.settings.pairings) or 'none'}")
    for said in record_rules(project):
        click.echo(f"changed: {said}", err=True)
    if past:
        _history(project, name, as_json)
        return
    what = f"pairing {pairing}" if pairing else name or "all cohorts"
    everybody = shows_excluded(project, excluded, reason, "cohort", Words(Plain(what)))
    if pairing:
        purpose = project.steps[step].name if step else None
        found = readiness(project, pairing, everybody, step=purpose, cohort=name)
        _paired_json(found, only) if as_json else _paired(found, only)
    click.echo(_members(project, name, everybody, as_json, silent=bool(pairing)), err=True)


def _history(project: Project, name: str | None, as_json: bool) -> None:
    names = [name] if name else list(project.settings.cohorts)
    with project.catalog.read() as connection:
        listed = [one for cohort in names for one in rule_versions(connection, cohort)]
    if as_json:
        echo_json({"history": [vars(one) for one in listed]})
        return
    columns = ("cohort", "since", "by", "version", *map(level_names, ENTITY_LEVELS), "rule")
    rows = [(o.cohort, o.at[:19], o.actor, o.version[:8], *map(o.members.get, ENTITY_LEVELS), o.words) for o in listed]
    table(columns, rows)


def _paired(found: Readiness, only: Status | None) -> None:
    table(pair_columns(found), pair_rows(found, only), title=f"{found.pairing.name}: {found.pairing.by}")
    enough = f"; {found.enough} have {found.pairing.require} or more" if found.pairing.require else ""
    barred = f"may not be used{f' for {found.step}' if found.step else ''}"
    click.echo(f"{found.words}{enough}; {found.without} without any of it (in brackets: {barred})", err=True)


def _paired_json(found: Readiness, only: Status | None) -> None:
    rows = [
        {
            found.pairing.within: row.who,
            "status": row.status,
            "values": {
                value: {"usable": cell.usable, "not_usable": cell.barred, "passes": cell.passes}
                for value, cell in row.cells.items()
            },
            "missing": row.missing,
            "passing": row.passing,
            "enough": row.enough,
            "reason": row.reason,
        }
        for row in found.rows
        if only in (None, row.status)
    ]
    counts = {**{status: found.counts[status] for status in STATUSES}, "none": found.without, "enough": found.enough}
    said = {"pairing": found.pairing.name, "by": found.pairing.by, "for": found.step}
    echo_json({**said, "counts": counts, "rows": rows})


def _members(project: Project, name: str | None, everybody: bool, as_json: bool, silent: bool) -> str:
    """Returns who was left out."""
    verdicts = None if silent else evaluate(project)
    with project.catalog.read() as connection:
        gate = Gate.of(project, connection, everybody)
        audit = gate.audit
        if verdicts is None:
            return audit
        found = list(memberships(gate, verdicts, name))
        ruled = rules(gate, name)
    usable = {level_names(one): int(gate.usable(one).sum()) for one in ENTITY_LEVELS}
    if as_json:
        listed: list[dict[str, Any]] = [dict(vars(one)) for one in found]
        echo_json({"usable": usable, "left_out": gate.left_out, "cohorts": ruled, "artifacts": listed})
        return audit
    table(
        ("level", "usable", "left out"), [(one, usable[level_names(one)], gate.left_out[one]) for one in ENTITY_LEVELS]
    )
    click.echo()
    table(RULES, rule_rows(ruled))
    click.echo()
    table(ARTIFACTS, artifact_rows(found))
    for said in (doubt for one in ruled for doubt in one["doubts"]):
        click.echo(said, err=True)
    return audit
