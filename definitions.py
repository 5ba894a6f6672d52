"""What Dagster loads: the project of this directory (or else of CT_PROJECT), as assets, checks, jobs and sensors."""

from pathlib import Path

import dagster as dg

from ct_assets.asset_keys import check_home
from ct_assets.definitions import build_assets, build_resources, with_own
from ctcore.config.settings import FILE_NAME
from ctcore.project import Project
from sensors.integrity import integrity_sensor
from sensors.jobs import jobs_sensor
from sensors.sheet import sheet_sensor
from sensors.staleness import staleness_sensor

here = Path(__file__).parent
project = Project.find(here if (here / FILE_NAME).is_file() else None)
check_home(project)

defs = with_own(
    dg.Definitions(
        assets=build_assets(project),
        sensors=[sheet_sensor(project), staleness_sensor(project), integrity_sensor(project), jobs_sensor(project)],
        resources=build_resources(project),
        executor=dg.in_process_executor,
    ),
    here,
)
