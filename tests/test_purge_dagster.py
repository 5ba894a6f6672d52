"""After a purge, Dagster's event log has nothing of what was purged, and all of the rest."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ct_assets.build import build_resources
from ct_assets.partitions import add_missing
from ct_assets.wiping import wipe_purged
from ctcore.consent import Statement, set_consent
from ctcore.project import Project
from ctcore.purging.removal import remove
from sensors.integrity import integrity_sensor
from tests.in_dagster import run, span
from tests.kit import make_project
from tests.test_purge import STEPS, cohort, word


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as made:
        yield made


def made(project: Project, instance: dg.DagsterInstance, asset: str, *keys: str) -> None:
    more = {"partition_key": keys[0]} if len(keys) == 1 else {"tags": span(*keys)}
    assert run(project, instance, asset, **more).success


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
    made(project, instance, "heard", "A000", "A101")
    made(project, instance, "merged", "S10")
    made(project, instance, "merged", "S00")
    made(project, instance, "joined", "all")
    made(project, instance, "assay", "A000", "A101")
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
    made(project, instance, "joined", "all")
    assert told(instance, "joined") == {"all"}
    assert wipe_purged(project, instance, 0) == (1, 0), "what was told later stays"
    assert holders(tmp_path, "P1") == []
    assert holders(tmp_path, "P0")
