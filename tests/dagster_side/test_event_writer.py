"""Events as ct writes them are, row for row, those that Dagster writes."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage

from ct_assets.event_log_storage import kept_open
from ct_assets.event_writer import EventWriter, LastMaterializations, can_write
from ct_assets.partitions import add_missing
from ct_assets.registry_assets import tell
from ctcore.project import Project
from tests.helpers.in_dagster import run, span
from tests.helpers.kit import make_project

TABLES = ("event_logs", "asset_keys", "asset_event_tags", "asset_check_executions")
CLOCK = "create_timestamp"  # SQLite's own, of the moment


@pytest.fixture
def project(tmp_path: Path, instance: dg.DagsterInstance) -> Project:
    made = make_project(tmp_path / "toy")
    add_missing(made, instance)
    return made


@pytest.fixture
def other() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


def rows(instance: dg.DagsterInstance, shard: str) -> dict[str, list[dict[str, Any]]]:
    place = instance.event_log_storage.path_for_shard(shard)  # type: ignore[attr-defined]
    found: dict[str, list[dict[str, Any]]] = {}
    with closing(sqlite3.connect(place)) as connection:
        connection.row_factory = sqlite3.Row
        for table in TABLES:
            listed = [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY id")]
            found[table] = [{key: value for key, value in row.items() if key != CLOCK} for row in listed]
    return found


def events(instance: dg.DagsterInstance, runs: list[str]) -> list[dg.EventLogEntry]:
    return [one for run_id in runs for one in instance.all_logs(run_id)]


def test_events_are_row_for_row_those_of_dagster(
    project: Project, instance: dg.DagsterInstance, other: dg.DagsterInstance
) -> None:
    runs = [
        run(project, instance, "counted", tags=span("A1", "A3")).run_id,
        run(project, instance, "counted", partition_key="A1").run_id,
        run(project, instance, "merged", partition_key="S1").run_id,
    ]
    tell(project, instance, "assay", ["A1", "A2"])
    said = [*events(instance, [*runs, ""])]
    assert {one.dagster_event_type for one in said} >= {
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        dg.DagsterEventType.ASSET_CHECK_EVALUATION,
        dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
        dg.DagsterEventType.RUN_SUCCESS,
    }
    with dg.instance_for_test() as stock:
        for one in said:
            stock.event_log_storage.store_event(one)
        with kept_open(other):
            for one in said:
                other.event_log_storage.store_event(one)
        for shard in ("index", *runs, ""):
            assert rows(other, shard) == rows(stock, shard)
        assert len(rows(stock, "index")["asset_keys"]) == 3


def test_a_row_of_an_asset_is_written_before_it_is_read(instance: dg.DagsterInstance) -> None:
    with kept_open(instance):
        for partition in ("a", "b"):
            instance.report_runless_asset_event(dg.AssetMaterialization("one", partition=partition))
        record = instance.get_asset_records([dg.AssetKey("one")])[0]
        last = record.asset_entry.last_materialization
        assert last is not None and last.asset_materialization is not None
        assert last.asset_materialization.partition == "b"


def test_the_last_materialization_is_asked_once_between_events(instance: dg.DagsterInstance) -> None:
    asked: list[Any] = []

    def fetch(*arguments: Any, **_: Any) -> str:
        asked.append(arguments)
        return "found"

    last = LastMaterializations(fetch)
    assert [last.fetch("a", limit=1) for _ in range(3)] == ["found"] * 3
    last.fetch("b", limit=1)
    last.forget()
    last.fetch("a", limit=1)
    assert asked == [("a",), ("b",), ("a",)]


def test_what_was_read_as_a_transaction_ended_is_read_again() -> None:
    def fetch() -> int:
        last.forget()  # as where it took longer than others may be kept waiting
        return len(seen)

    last, seen = LastMaterializations(fetch), list[int]()
    for _ in range(3):
        seen.append(last.fetch())
    assert seen == [0, 1, 2]


def test_dagster_has_the_names_that_the_writer_uses(instance: dg.DagsterInstance) -> None:
    storage: Any = instance.event_log_storage
    assert can_write(storage), "Dagster's internals have other names"
    with kept_open(instance):
        assert isinstance(vars(storage)["_ct_kept_open"].writer, EventWriter)


def test_another_storage_writes_its_events_itself() -> None:
    class Other(SqliteEventLogStorage):
        def store_event(self, event: dg.EventLogEntry) -> None:
            raise NotImplementedError

    assert not can_write(Other.__new__(Other))
