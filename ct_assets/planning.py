"""⑧ The plan in Dagster's UI: an asset whose materialization shows what would run. Looking at it runs nothing else."""

import dagster as dg
from pydantic import Field

from ct_assets.keys import group_of, key_of
from ct_assets.markdown import table
from ctcore.asking import held_back
from ctcore.looking import look_around
from ctcore.narrow import Narrowing
from ctcore.plan import plan
from ctcore.planfile import as_json
from ctcore.plantext import COLUMNS, REASONS, left_rows, reason_rows, rows, summary
from ctcore.project import Project
from ctcore.steps import PLAN
from resources import CtProject


class Selection(dg.Config):
    """What the plan is of."""

    select: list[str] = Field(default=[], description="Steps and nodes, as for `ct plan`; empty: everything.")
    cohort: str = Field(default="", description="Only members of this cohort, and the cohort itself.")
    pairing: str = Field(default="", description="Only who has any of what belongs together in this pairing.")
    complete_only: bool = Field(default=False, description="Only what is complete in the pairing.")
    profile: str = Field(default="", description="Where it would run: local, or a [slurm.NAME] of ct.toml.")


_DESCRIPTION = (
    "What would run now, in order, why, what is reused, and at what cost. Materialize it to see the plan; this "
    "makes nothing else. Its launchpad takes a selection."
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
    narrowing = Narrowing(config.cohort or None, config.pairing or None, config.complete_only)
    found = plan(project, config.select, config.profile or None, narrowing)
    held = held_back(project, (verdict for one in found.steps for verdict in (*one.run, *one.reuse)))
    parts = [
        summary(found),
        *found.said,
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
