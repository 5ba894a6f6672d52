"""`ct status`: how far everything is."""

from collections.abc import Collection, Sequence

import click

from ctcore.errors import Usage
from ctcore.governance.masking import UNMASKED, Mask, mask_of
from ctcore.project import Project
from ctcore.query.disclosure import shows_excluded
from ctcore.query.exclusion_counts import excluded_by_step, excluded_lines
from ctcore.staleness.matrix import Matrix, cohorts_in_full, matrix
from ctcore.step import Step
from ctcore.terminal.cohort_options import filter_selected, narrowing_options
from ctcore.terminal.look_first import look_first
from ctcore.terminal.render import FOUND, MARK, echo_json, excluded_options, json_option, open_project, table


@click.command()
@click.argument("step", required=False)
@click.option(
    "--missing", is_flag=True, help="One row an entity without a fresh, usable result of STEP: why, and what to do."
)
@click.option("--all", "everything", is_flag=True, help="Show all entities, not only the first 40 of a level.")
@narrowing_options
@excluded_options
@json_option
@click.pass_context
def status(
    ctx: click.Context,
    step: str | None,
    missing: bool,
    everything: bool,
    cohort: str | None,
    pairing: str | None,
    complete_only: bool,
    excluded: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    """Show the completeness matrix: entities by steps. Exit code 3 if a node is missing or not fresh.

    With STEP --missing: everybody who should have the result of STEP and has none that is fresh and may be used.
    Exit code 3 if there is anybody.
    """
    if missing != (step is not None):
        raise Usage("--missing is of one step: `ct status STEP --missing`; without both, `ct status` shows all steps")
    project = open_project(ctx)
    asked = project.steps[step] if step is not None else None
    if (life := project.catalog.project_state()).state != "active":
        click.echo(f"{project.id} is {life.words}", err=True)
    sight = look_first(project)
    what = f"status {asked.name} --missing" if asked is not None else "status"
    seen = UNMASKED if shows_excluded(project, excluded, reason, what) else mask_of(project)
    keys = filter_selected(project, None, cohort, pairing, complete_only)
    if asked is not None:
        any_missing = _missing(project, asked, seen, None if keys is None else keys.get(asked.name, set()), as_json)
        if seen:
            click.echo(seen.words, err=True)
        ctx.exit(FOUND if any_missing or not sight.is_clear else 0)
    left_out = excluded_by_step(project, keys)
    tables = matrix(project, None if everything or as_json else 40, seen, keys)
    if as_json:
        echo_json(
            {
                one.level: {
                    "steps": one.steps,
                    "counts": one.counts,
                    "excluded": {name: dict(left_out[name]) for name in one.steps if name in left_out},
                    "accepted": {name: sorted(some) for name, some in one.accepted.items() if some},
                    "entities": {who: dict(zip(one.steps, states, strict=True)) for _, who, states in one.rows},
                    **(cohorts_in_full(project, seen, keys) if one.level == "cohort" else {}),
                }
                for one in tables
            }
        )
    else:
        for one in tables:
            _matrix(one)
        for said in excluded_lines(left_out):
            click.echo(said, err=True)
    if seen:
        click.echo(seen.words, err=True)
    open_ = sum(
        n
        for one in tables
        for counts in one.counts.values()
        for state, n in counts.items()
        if state not in ("fresh", "excluded")
    )
    ctx.exit(FOUND if open_ or not sight.is_clear else 0)


def _missing(project: Project, step: Step, seen: Mask, only: Collection[str] | None, as_json: bool) -> bool:
    """Show them; whether there are any."""
    from ctcore.query.missing_results import missing_results

    found = missing_results(project, step, seen, only)
    if as_json:
        echo_json({"step": found.step, "level": found.level, "missing": [one.as_json for one in found.rows]})
    else:
        rows = [(one.node[1], one.state, one.why, one.since, one.by, one.next) for one in found.rows]
        table((found.level, "state", "why", "since", "by", "next"), rows)
    return bool(found.rows)


def _matrix(one: Matrix) -> None:
    above = {"assay": "specimen", "specimen": "patient"}.get(one.level)
    columns = [*([above] if above else []), one.level, *one.steps]
    rows = [[*([parent] if above else []), who, *_marked(one, who, states)] for parent, who, states in one.rows]
    total = [_share(one.counts[name]) for name in one.steps]
    rows.append([*([""] if above else []), "fresh", *total])
    table(columns, rows, title=f"{one.level}s")
    if any(one.accepted.values()):
        click.echo(f"{MARK}: fresh because somebody accepted the difference; `ct why NODE` shows who and why", err=True)
    if one.hidden:
        click.echo(f"… and {one.hidden} more {one.level}s (--all)", err=True)
    click.echo()


def _marked(one: Matrix, who: str, states: Sequence[str]) -> list[str]:
    return [
        f"{state}{MARK}" if who in one.accepted[name] else state for name, state in zip(one.steps, states, strict=True)
    ]


def _share(counts: dict[str, int]) -> str:
    return f"{counts['fresh']}/{sum(n for state, n in counts.items() if state != 'excluded')}"
