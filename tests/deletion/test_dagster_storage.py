"""Dagster's storage is searched for purged nodes: by asset and partition, by run, and by data version."""

import json
import sqlite3
from pathlib import Path

import pytest

from ctcore.deletion.dagster_storage import PurgedNodes, purged_nodes
from ctcore.lineage.containment import containment_of
from tests.helpers.kit import make_all, make_project
from tests.helpers.purging import purge_patient

GONE, OTHER = "a" * 64, "b" * 64
BEFORE, AFTER = "2026-05-03 09:00:00", "2026-05-03 11:00:00"
TABLES = {
    "event_logs": ("run_id", "dagster_event_type", "timestamp", "step_key", "asset_key", "partition", "event"),
    "asset_keys": ("asset_key", "last_materialization"),
    "asset_event_tags": ("asset_key", "key", "value"),
    "asset_check_executions": ("asset_key", "evaluation_event_timestamp"),
}
EVENT = "has events or messages of purged nodes"
LAST = "has a purged node as the last materialization of its asset"
VERSION = "has data versions of purged nodes"
CHECK = "has check results of purged nodes"


def key(name: str) -> str:
    return json.dumps([name])


def nodes(home: Path) -> PurgedNodes:
    return PurgedNodes(
        home=home,
        ids=frozenset({"A1"}),
        assets=frozenset({key("counted"), key("joined")}),
        judged=frozenset({key("counted")}),
        versions=frozenset({GONE}),
        before="2026-05-03 10:00:00",
        made=frozenset({"run-1"}),
        nodes=frozenset({(key("joined"), "all")}),
        project=None,
    )


def said(home: Path, table: str, *row: str | None) -> list[str]:
    connection = sqlite3.connect(":memory:")
    connection.execute(f"CREATE TABLE {table} ({', '.join(TABLES[table])})")
    connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    return nodes(home).words(connection, {table})


@pytest.mark.parametrize(
    ("kind", "at", "step", "asset", "partition", "event", "words"),
    [
        ("ASSET_MATERIALIZATION", AFTER, "counted", key("counted"), "A1", "", [EVENT]),
        ("ASSET_MATERIALIZATION_PLANNED", BEFORE, "counted", key("counted"), "A1", "", [EVENT]),
        ("ASSET_MATERIALIZATION_PLANNED", AFTER, "counted", key("counted"), "A1", "", []),
        ("ASSET_MATERIALIZATION", BEFORE, "counted", key("counted"), "A2", "", []),
        ("ASSET_MATERIALIZATION", BEFORE, "counted", key("others"), "A1", "", []),
        ("ASSET_MATERIALIZATION", BEFORE, "joined", key("joined"), "all", "", [EVENT]),
        ("ASSET_MATERIALIZATION", AFTER, "joined", key("joined"), "all", "", []),
        ("ASSET_MATERIALIZATION", AFTER, "joined", key("joined"), "all", f"tag {GONE}", [EVENT]),
        ("ASSET_MATERIALIZATION", AFTER, "joined", key("joined"), "all", f"tag {OTHER}", []),
        ("STEP_FAILURE", BEFORE, "counted", None, None, "", [EVENT]),
        ("STEP_FAILURE", BEFORE, "merged", None, None, "", []),
        ("STEP_START", BEFORE, "counted", None, None, "", []),
        ("PIPELINE_FAILURE", BEFORE, None, None, None, "", [EVENT]),
    ],
)
def test_an_event_is_found_by_its_node_its_run_or_its_version(
    tmp_path: Path, kind: str, at: str, step: str, asset: str, partition: str, event: str, words: list[str]
) -> None:
    assert said(tmp_path, "event_logs", "run-1", kind, at, step, asset, partition, event) == words


def test_what_other_tables_keep_of_the_node_is_found(tmp_path: Path) -> None:
    last = '{"partition": "A1"}'
    assert said(tmp_path, "asset_keys", key("counted"), last) == [LAST]
    assert said(tmp_path, "asset_keys", key("counted"), '{"partition": "A10"}') == []
    assert said(tmp_path, "asset_keys", key("others"), last) == []
    assert said(tmp_path, "asset_event_tags", key("joined"), "dagster/data_version", GONE) == [VERSION]
    assert said(tmp_path, "asset_event_tags", key("joined"), "dagster/data_version", OTHER) == []
    assert said(tmp_path, "asset_event_tags", key("joined"), "other", GONE) == []
    assert said(tmp_path, "asset_check_executions", key("counted"), BEFORE) == [CHECK]
    assert said(tmp_path, "asset_check_executions", key("counted"), AFTER) == []
    assert said(tmp_path, "asset_check_executions", key("joined"), BEFORE) == []


def test_a_run_of_one_partition_is_the_persons(tmp_path: Path) -> None:
    (tmp_path / "history").mkdir()
    connection = sqlite3.connect(tmp_path / "history/runs.db")
    connection.execute("CREATE TABLE run_tags (run_id, key, value)")
    rows = [("run-2", "dagster/partition", "A1"), ("run-3", "dagster/partition", "A2")]
    connection.executemany("INSERT INTO run_tags VALUES (?, ?, ?)", rows)
    connection.commit()
    connection.close()
    assert nodes(tmp_path).runs == {"run-1", "run-2"}
    assert nodes(tmp_path / "none").runs == {"run-1"}


def test_a_purge_names_its_nodes_for_dagster(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    purge_patient(project, "P1")
    with project.catalog.read() as connection:
        found = purged_nodes(project, connection, containment_of(project, connection, "P1"), frozenset({GONE}))
    assert found.ids == {"P1", "S1", "A1", "A2"} and found.project is None and found.versions == {GONE}
    assert (key("joined"), "all") in found.nodes and (key("counted"), "A3") not in found.nodes
    assert key("joined") in found.judged and key("specimen") in found.assets and found.before > BEFORE
