"""After a purge, Dagster's event log has nothing of what was purged, and all of the rest."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ct_assets.build import build_assets, build_resources
from ct_assets.partitions import add_missing
from ct_assets.wiping import wipe_purged
from ctcore.consent import Statement, set_consent
from ctcore.project import Project
from ctcore.purging.removal import remove
from sensors.integrity import integrity_sensor
from tests.kit import make_project
from tests.test_purge import STEPS, cohort, word

RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as made:
        yield made


def run(project: Project, instance: dg.DagsterInstance, asset: str, *keys: str) -> None:
    defs = dg.Definitions(assets=build_assets(project), resources=build_resources(project))
    job = defs.resolve_implicit_global_asset_job_def()
    more = {"partition_key": keys[0]} if len(keys) == 1 else {"tags": dict(zip(RANGE, keys, strict=True))}
    done = job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(asset)], **more)  # pyright: ignore[reportArgumentType]
    assert done.success


def holders(folder: Path, patient: str) -> list[str]:
    """Files of Dagster that have the person's word in them."""
    found = [path for path in folder.rglob("*") if path.is_file() and "toy" not in path.parts]
    return [str(path.relative_to(folder)) for path in found if word(patient).encode() in path.read_bytes()]


def told(instance: dg.DagsterInstance, asset: str) -> set[str]:
    return set(instance.get_materialized_partitions(dg.AssetKey(asset)))


def test_dagster_forgets_what_was_purged_and_nothing_else(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    steps = STEPS.replace('outputs={"words": "words.txt"}', 'outputs={"words": Output("words.tsv", preview=True)}')
    steps = steps.replace("import Call, step", "import Call, Output, step")
    project = make_project(tmp_path / "toy", cohort(tmp_path / "toy", [[1], [2]]), steps=steps)
    add_missing(project, instance)
    run(project, instance, "heard", "A000", "A101")
    run(project, instance, "merged", "S10")
    run(project, instance, "merged", "S00")
    run(project, instance, "joined", "all")
    run(project, instance, "assay", "A000", "A101")
    assert holders(tmp_path, "P1") and holders(tmp_path, "P0")
    set_consent(project, ["P1"], Statement("revoked", form="letter"))
    remove(project, "P1", "asked", "P1")
    tick = integrity_sensor(project)
    with dg.build_sensor_context(instance=instance, resources=build_resources(project)) as context:
        result = tick(context)
    assert isinstance(result, dg.SensorResult) and result.cursor == "1"
    assert told(instance, "heard") == {"A000"} and told(instance, "merged") == {"S00"}
    assert told(instance, "joined") == set() and told(instance, "assay") == {"A000"}
    assert wipe_purged(project, instance, 1) == (1, 0)
    run(project, instance, "joined", "all")
    assert told(instance, "joined") == {"all"}
    assert wipe_purged(project, instance, 0) == (1, 0), "what was told later stays"
    assert holders(tmp_path, "P1") == []
    assert holders(tmp_path, "P0")
