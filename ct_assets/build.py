"""③ All definitions of a project: what `definitions.py` wires together."""

import dagster as dg

from ct_assets.factory import step_asset
from ct_assets.planning import plan_asset
from ct_assets.registry import registry_assets
from ctcore.project import Project
from resources import CtProject, jobs_of


def build_assets(project: Project) -> list[dg.AssetsDefinition]:
    """Registry assets, one asset a step, and the plan."""
    return [*registry_assets(project), plan_asset(project), *(step_asset(project, step) for step in project.steps)]


def build_resources(project: Project) -> dict[str, dg.ConfigurableResource]:
    return {"ct": CtProject(root=str(project.root)), "jobs": jobs_of(project)}
