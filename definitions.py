"""What Dagster loads: the project of this directory (or of CT_PROJECT), as assets, checks, jobs and sensors."""

import os
from pathlib import Path

import dagster as dg

from ct_assets.build import build_assets, build_resources
from ctcore.project import Project
from sensors.integrity import integrity_sensor
from sensors.jobs import jobs_sensor
from sensors.sheet import sheet_sensor
from sensors.staleness import staleness_sensor

project = Project.find(Path(os.environ.get("CT_PROJECT") or Path(__file__).parent))

defs = dg.Definitions(
    assets=build_assets(project),
    sensors=[sheet_sensor(project), staleness_sensor(project), integrity_sensor(project), jobs_sensor(project)],
    resources=build_resources(project),
    executor=dg.in_process_executor,
)
