"""Builds the assets and resources of a project for its `definitions.py`."""

import dagster as dg

from ct_assets.plan_asset import plan_asset
from ct_assets.readiness_asset import readiness_asset
from ct_assets.registry_assets import registry_assets
from ct_assets.step_assets import step_asset
from ctcore.project import Project
from resources import CtProject, jobs_of


def build_assets(project: Project) -> list[dg.AssetsDefinition]:
    """Registry assets, one asset a step, the plan and the readiness."""
    return [
        *registry_assets(project),
        plan_asset(project),
        readiness_asset(project),
        *(step_asset(project, step) for step in project.steps),
    ]


def build_resources(project: Project) -> dict[str, dg.ConfigurableResource]:
    return {"ct": CtProject(root=str(project.root)), "jobs": jobs_of(project)}
