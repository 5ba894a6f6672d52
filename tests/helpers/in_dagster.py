"""Materializing a project's assets in a process: what tests of Dagster begin with."""

from typing import Any

import dagster as dg

from ct_assets.asset_keys import key_of
from ct_assets.definitions import build_assets, build_resources
from ctcore.project import Project

RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


def run(project: Project, instance: dg.DagsterInstance, *assets: str, **more: Any) -> dg.ExecuteInProcessResult:
    """One run of these assets; `more` goes to Dagster: partition_key, tags, raise_on_error."""
    defs = dg.Definitions(assets=build_assets(project), resources=build_resources(project))
    job = defs.resolve_implicit_global_asset_job_def()
    keys = [key_of(project, name) for name in assets]
    return job.execute_in_process(instance=instance, asset_selection=keys, **more)


def span(first: str, last: str) -> dict[str, str]:
    """The tags of a run over a range of partitions."""
    return dict(zip(RANGE, (first, last), strict=True))
