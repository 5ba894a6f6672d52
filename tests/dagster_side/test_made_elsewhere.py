"""What another pipeline made, in Dagster: an asset that is told of, and that no run makes."""

from pathlib import Path

import dagster as dg

from ct_assets.partitions import add_missing
from ctcore.planning.requests import RequestRound, decide_requests
from ctcore.project import Project
from tests.helpers.adopted import project_with, take, vcf
from tests.helpers.in_dagster import run
from tests.helpers.kit import again, make


def decide(project: Project) -> RequestRound:
    """What the sensor would ask for, where no run is under way."""
    return decide_requests(project, lambda _: set(), lambda _: (set(), set()))


WAY = "made elsewhere: `ct adopt joint/all …`"


def test_a_run_of_it_says_that_it_is_made_elsewhere(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    project = project_with(tmp_path)
    add_missing(project, instance)
    done = run(project, instance, "joint", partition_key="all", raise_on_error=False)
    assert not done.success
    assert any(WAY in str(event.event_specific_data) for event in done.all_events if event.is_failure)


def test_a_run_of_it_tells_dagster_what_was_adopted(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    project = project_with(tmp_path)
    add_missing(project, instance)
    take(project, vcf(tmp_path))
    assert run(project, instance, "joint", partition_key="all").success
    (event,) = instance.fetch_materializations(dg.AssetKey("joint"), limit=5).records
    assert "made elsewhere by GLnexus" in str(event.asset_materialization and event.asset_materialization.metadata)
    assert not [one for one in decide(again(project)).asked if one.batch.asset == "joint"]


def test_the_sensor_asks_for_no_run_that_would_make_it(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    found = decide(project)
    assert "joint" not in {one.batch.asset for one in found.asked}
    assert f"1 node of joint {WAY}" in found.words
    take(project, vcf(tmp_path))
    assert {one.batch.asset for one in decide(again(project)).asked} >= {"joint", "report"}
    make(again(project), "report", "all")
