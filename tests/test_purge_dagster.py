"""After a purge, Dagster's event log has nothing of what was purged, and all of the rest."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text

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


@pytest.fixture(params=["sqlite", "postgresql"])
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Dagster with its storage in either database."""
    overrides: dict[str, Any] = {}
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url").replace("://", "+psycopg2://", 1)
        overrides["storage"] = {"postgres": {"postgres_url": url}}
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides=overrides) as made:
        yield made


def made(project: Project, instance: dg.DagsterInstance, asset: str, *keys: str) -> None:
    more = {"partition_key": keys[0]} if len(keys) == 1 else {"tags": span(*keys)}
    assert run(project, instance, asset, **more).success


def holders(folder: Path, instance: dg.DagsterInstance, patient: str) -> list[str]:
    """Files and tables of Dagster that have the person's word in them."""
    found = [path for path in folder.rglob("*") if path.is_file() and "toy" not in path.parts]
    names = [str(path.relative_to(folder)) for path in found if word(patient).encode() in path.read_bytes()]
    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        if connection.dialect.name == "postgresql":
            tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
            for name in connection.execute(text(tables)).scalars().all():
                rows = text(f'SELECT count(*) FROM "{name}" AS t WHERE t::text LIKE :word')
                names += [name] if connection.execute(rows, {"word": f"%{word(patient)}%"}).scalar() else []
    return names


def told(instance: dg.DagsterInstance, asset: str) -> set[str]:
    return set(instance.get_materialized_partitions(dg.AssetKey(asset)))


def test_dagster_forgets_what_was_purged_and_nothing_else(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    steps = STEPS.replace('outputs={"words": "words.txt"}', 'outputs={"words": Output("words.tsv", preview=True)}')
    steps = steps.replace("import Call, step", "import Call, Output, step")
    fails = '    raise ValueError("P1: " + call.one("all")["words"].read_text())\n'
    steps = steps.replace(line := "few(call: Call) -> None:\n", line + fails)
    project = make_project(tmp_path / "toy", cohort(tmp_path / "toy", [[1], [2]]), steps=steps)
    add_missing(project, instance)
    made(project, instance, "heard", "A000", "A101")
    made(project, instance, "merged", "S10")
    made(project, instance, "merged", "S00")
    made(project, instance, "joined", "all")
    made(project, instance, "assay", "A000", "A101")
    assert not run(project, instance, "few", partition_key="all", raise_on_error=False).success
    assert holders(tmp_path, instance, "P1") and holders(tmp_path, instance, "P0")
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
    assert holders(tmp_path, instance, "P1") == []
    assert holders(tmp_path, instance, "P0")
