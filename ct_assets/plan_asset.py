"""The plan in Dagster's UI: an asset whose materialization shows what would run. It makes no node."""

import dagster as dg
from pydantic import Field

from ct_assets.asset_keys import group_of, key_of
from ct_assets.markdown import table
from ctcore.cohorts.filters import NodeFilter
from ctcore.integrity.look import look_around
from ctcore.planning.plan import plan
from ctcore.planning.plan_file import as_json
from ctcore.planning.plan_text import COLUMNS, REASONS, left_rows, reason_rows, rows, summary
from ctcore.planning.requests import hold_reasons
from ctcore.project import Project
from ctcore.steps.graph import PLAN
from resources import CtProject


class Selection(dg.Config):
    """The nodes that the plan covers."""

    select: list[str] = Field(default=[], description="Steps and nodes, as for `ct plan`; empty: everything.")
    cohort: str = Field(default="", description="Only members of this cohort, and the cohort itself.")
    pairing: str = Field(default="", description="Only groups with at least one member in this pairing.")
    complete_only: bool = Field(default=False, description="Only groups that are complete in the pairing.")
    profile: str = Field(default="", description="Profile: local, or a [slurm.NAME] of ct.toml.")


_DESCRIPTION = (
    "What would run now and why, in order, with reused results and costs. Materialize it to see the plan; this makes "
    "nothing else. Its launchpad takes a selection."
)


def plan_asset(project: Project) -> dg.AssetsDefinition:
    """The plan of a project, as an asset."""

    @dg.asset(
        key=key_of(project, PLAN), group_name=group_of(project, "registry"), kinds={"table"}, description=_DESCRIPTION
    )
    def body(config: Selection, ct: CtProject) -> dg.MaterializeResult:
        return _planned(ct.open(), config)

    return body


def _planned(project: Project, config: Selection) -> dg.MaterializeResult:
    look_around(project)
    narrowing = NodeFilter(config.cohort or None, config.pairing or None, config.complete_only)
    found = plan(project, config.select, config.profile or None, narrowing)
    held = hold_reasons(project, (verdict for one in found.steps for verdict in (*one.run, *one.reuse)))
    parts = [
        summary(found),
        *found.notes,
        *(f"The staleness sensor: {said}" for said in held),
        table("What would run, in order", COLUMNS, rows(found)),
        table("Why", REASONS, reason_rows(found)),
        table("What would not run", REASONS, left_rows(found)),
    ]
    return dg.MaterializeResult(
        metadata={
            "plan": dg.MetadataValue.md("\n\n".join(part for part in parts if part)),
            "at most": found.nodes,
            "expected": round(found.expected, 1),
            "reused": found.reused,
            "core-hours": round(found.core_hours(), 3),
            "as JSON": dg.MetadataValue.json(as_json(found)),
        }
    )
