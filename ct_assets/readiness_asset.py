"""Readiness in Dagster's UI: an asset whose materialization shows the members of cohorts and complete pairings."""

from typing import Any

import dagster as dg

from ct_assets.asset_keys import group_of, key_of
from ct_assets.markdown import table
from ctcore.cohorts.pairings import Readiness
from ctcore.integrity.look import look_around
from ctcore.project import Project
from ctcore.query.cohort_members import memberships
from ctcore.query.readable import Gate
from ctcore.query.readiness import (
    ARTIFACTS,
    RULES,
    artifact_rows,
    open_rows,
    pair_columns,
    pairings,
    rule_rows,
    rules,
)
from ctcore.staleness.verdicts import evaluate
from ctcore.steps.graph import READINESS
from resources import CtProject

ROWS = 50  # groups that are listed one by one


_DESCRIPTION = (
    "Cohorts with rules and members, the members of each artifact then and now, and the complete and incomplete "
    "groups of each pairing. Materialize it to see them; this makes nothing else."
)


def readiness_asset(project: Project) -> dg.AssetsDefinition:
    """The readiness of a project, as an asset."""

    @dg.asset(
        key=key_of(project, READINESS),
        group_name=group_of(project, "registry"),
        kinds={"table"},
        description=_DESCRIPTION,
    )
    def body(ct: CtProject) -> dg.MaterializeResult:
        return _shown(ct.open())

    return body


def _shown(project: Project) -> dg.MaterializeResult:
    look_around(project)
    verdicts, paired = evaluate(project), pairings(project)
    with project.catalog.read() as connection:
        gate = Gate.of(project, connection)
        ruled, made = rules(gate), list(memberships(gate, verdicts))
    parts = [
        gate.audit,
        table("Cohorts", RULES, rule_rows(ruled)),
        *(f"- {doubt}" for one in ruled for doubt in one["doubts"]),
        table("Artifacts: members then and today", ARTIFACTS, artifact_rows(made)),
        *(part for title, found in paired for part in _pairing(title, found)),
    ]
    return dg.MaterializeResult(
        metadata={
            "readiness": dg.MetadataValue.md("\n\n".join(part for part in parts if part)),
            **_numbers(project, paired),
        }
    )


def _pairing(title: str, found: Readiness) -> list[str]:
    rows = open_rows(found, ROWS)
    many = len(found.rows) - found.counts["complete"]
    more = f"… and {many - ROWS} more: `ct cohort --pairing {found.pairing.name}`" if many > ROWS else ""
    return [
        f"### {title}",
        f"{found.words}, {found.without} without any of it",
        table("Not complete", pair_columns(found), rows),
        more,
    ]


def _numbers(project: Project, paired: list[tuple[str, Readiness]]) -> dict[str, Any]:
    """Counts, which Dagster's UI draws over time."""
    found: dict[str, Any] = {"cohorts": len(project.settings.cohorts)}
    for title, ready in paired:
        name = title.partition(":")[0]
        found |= {f"{name}: complete": ready.counts["complete"], f"{name}: all": len(ready.rows)}
    return found
