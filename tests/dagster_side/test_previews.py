"""A preview of a sensor says what a tick would do, and changes nothing."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import update

from ct_assets.asset_keys import PROJECT_TAG
from ct_assets.definitions import build_assets, build_resources
from ct_assets.partitions import add_missing
from ct_assets.runs import PROCESS_TAG
from ctcore.catalog.tables import file
from ctcore.config.settings import FILE_NAME
from ctcore.project import Project
from ctcore.projects.dagster_home import environment
from ctcore.util.processes import process_name
from sensors.integrity import integrity_sensor
from sensors.jobs import jobs_sensor
from sensors.preview import is_preview
from sensors.sheet import sheet_sensor
from sensors.staleness import staleness_sensor
from tests.helpers.kit import ROWS, STEPS, TOML, again, assay, make_all, make_project, write_sheet
from tests.helpers.shell import ROOT, contents, shell

SENSORS = {"staleness": staleness_sensor, "sheet": sheet_sensor, "jobs": jobs_sensor, "integrity": integrity_sensor}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    toml = TOML.replace('id = "toy"', 'id = "toy"\nsheet = "sheet.csv"')
    return make_project(tmp_path / "toy", toml=toml)


def evaluated(
    project: Project, instance: dg.DagsterInstance, name: str, log_key: list[str] | None = None
) -> dg.SensorResult:
    """A sensor as Dagster's code server evaluates it: with `log_key` a tick, without a preview."""
    sensor, resources = SENSORS[name](project), build_resources(project)
    defs = dg.Definitions(assets=build_assets(project), resources=resources, sensors=[sensor])
    context = dg.SensorEvaluationContext(
        instance.get_ref(), None, None, None, log_key, "ct", defs.get_repository_def(), None, name, resources
    )
    with context:
        assert is_preview(context) is (log_key is None)
        return sensor.evaluate_tick(context)


@pytest.mark.parametrize("name", ["staleness", "sheet", "integrity"])
def test_a_preview_changes_nothing(project: Project, instance: dg.DagsterInstance, name: str) -> None:
    """Of a project in which a tick would have something to do: a file touched, one of the store gone, a new row."""
    add_missing(project, instance)
    make_all(project)
    lost = run_of_a_killed_process(project, instance)
    (project.root / "reads/A1.txt").write_text("other reads\n")
    next((project.root / "store").rglob("table.tsv")).chmod(0o644)
    next((project.root / "store").rglob("table.tsv")).write_text("rot")
    write_sheet(project.root, [*ROWS, assay("P3", "S3", "A4", sex="F")])
    with project.catalog.write() as writer:
        writer.execute(update(file).values(ctime_ns=0))
    before, keys = contents(project.root), instance.get_dynamic_partitions("toy.assays")
    shown = evaluated(again(project), instance, name)
    assert shown.skip_message or shown.run_requests
    assert contents(project.root) == before
    assert instance.get_dynamic_partitions("toy.assays") == keys
    assert {run.run_id: run.status for run in instance.get_runs()} == {lost: dg.DagsterRunStatus.STARTED}


def run_of_a_killed_process(project: Project, instance: dg.DagsterInstance) -> str:
    """A run that a tick would end."""
    gone = f"{process_name().partition(':')[0]}:999999999:1"
    tags = {PROCESS_TAG: gone, PROJECT_TAG: project.id}
    run = dg.DagsterRun(job_name="x", status=dg.DagsterRunStatus.STARTED, tags=tags)
    return instance.add_run(run).run_id


def test_a_tick_does_what_its_preview_has_said(project: Project, instance: dg.DagsterInstance) -> None:
    add_missing(project, instance)
    preview = evaluated(project, instance, "staleness")
    tick = evaluated(project, instance, "staleness", ["ct", "staleness", "7"])
    assert tick.run_requests == preview.run_requests
    assert contents(project.root)["request"], "a tick notes what it asks for"


def test_the_preview_of_the_sheet_says_what_is_wrong(project: Project, instance: dg.DagsterInstance) -> None:
    write_sheet(project.root, [*ROWS, assay("P3", "S3", "A1", sex="F")])
    assert "not registered" in str(evaluated(project, instance, "sheet").skip_message)


def test_the_preview_of_the_jobs_asks_no_slurm(project: Project, instance: dg.DagsterInstance) -> None:
    said = evaluated(project, instance, "jobs").skip_message
    assert said == "0 jobs without a run; a preview does not ask Slurm"


@pytest.mark.daemon
def test_dagsters_own_command_changes_nothing(tmp_path: Path) -> None:
    """Twice the same words: the first preview was noted as asked for, the second then found "asked for already"."""
    root = tmp_path / "cohort"
    assert shell("init", root).code == 0
    (root / FILE_NAME).write_text(TOML)
    (root / "genome.txt").write_text("ACGT\n")
    (root / "steps/toy.py").write_text(STEPS)
    assert shell("-C", root, "register", write_sheet(root, ROWS)).code == 0
    before = contents(root)
    variables = {**environment(Project.find(root)), "PYTHONPATH": str(ROOT)}
    command = [Path(sys.executable).with_name("dagster"), "sensor", "preview", "staleness", "-w", "workspace.yaml"]
    said = subprocess.run(command, cwd=root, env=variables, capture_output=True, text=True, check=True).stdout
    assert "Sensor returning run requests for 5 run(s)" in said
    assert contents(root) == before
