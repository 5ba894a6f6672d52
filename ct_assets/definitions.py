"""Builds the assets and resources of a project for its `definitions.py`."""

import importlib.util
import sys
from pathlib import Path

import dagster as dg

from ct_assets.plan_asset import plan_asset
from ct_assets.readiness_asset import readiness_asset
from ct_assets.registry_assets import registry_assets
from ct_assets.step_assets import step_asset
from ctcore.project import Project
from ctcore.projects.code_files import OWN_DEFINITIONS
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


def with_own(ours: dg.Definitions, folder: Path) -> dg.Definitions:
    """ct's definitions together with the group's own: `defs` of `own_definitions.py`, which ct never writes.

    DagsterInvalidDefinitionError where it has none, or where both define one name.
    """
    place = folder / OWN_DEFINITIONS
    if not place.is_file():
        return ours
    spec = importlib.util.spec_from_file_location(place.stem, place)
    assert spec is not None and spec.loader is not None  # as there are for every name in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[place.stem] = module  # a dataclass looks for its own module
    spec.loader.exec_module(module)
    own = getattr(module, "defs", None)
    if not isinstance(own, dg.Definitions):
        raise dg.DagsterInvalidDefinitionError(f"{place} defines no `defs = dg.Definitions(...)`")
    return dg.Definitions.merge(ours, own)
