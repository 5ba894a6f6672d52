"""Dagster's storage during a run: few transactions and processes, and still nothing is said before it is so."""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine, event, text

from ct_assets.compute_logs import beside_terminal
from ct_assets.event_log_storage import kept_open
from ct_assets.partitions import add_missing
from ct_assets.registry_assets import tell
from ct_assets.runs import SHELL_TAG
from ctcore.cohorts.registry import unreported_nodes
from ctcore.project import Project
from tests.helpers.in_dagster import run, span
from tests.helpers.kit import STEPS, make_project


def told(instance: dg.DagsterInstance, asset: str) -> int:
    """Materializations in Dagster's index, as another process sees them."""
    place = Path(instance.event_log_storage.path_for_shard("index"))  # type: ignore[attr-defined]
    asked = "SELECT count(*) FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION' AND asset_key = ?"
    with closing(sqlite3.connect(place)) as connection:
        return connection.execute(asked, (f'["{asset}"]',)).fetchone()[0]


@pytest.fixture
def project(tmp_path: Path, instance: dg.DagsterInstance) -> Project:
    made = make_project(tmp_path / "toy")
    add_missing(made, instance)
    return made


def run_kept(project: Project, instance: dg.DagsterInstance, *assets: str, **more: Any) -> dg.ExecuteInProcessResult:
    """As `ct run` does."""
    with kept_open(instance):
        return run(project, instance, *assets, **more)


def test_what_is_noted_as_reported_is_in_the_event_log(project: Project, instance: dg.DagsterInstance) -> None:
    """Otherwise a crash between the two would be the end of those events."""
    seen: list[tuple[str, int]] = []

    def noted(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE materialization SET reported"):
            seen.append(("counted", told(instance, "counted")))
        if statement.startswith("INSERT INTO reported"):
            seen.append(("assay", told(instance, "assay")))

    event.listen(Engine, "before_cursor_execute", noted)
    try:
        run_kept(project, instance, "counted", tags=span("A1", "A3"))
        run_kept(project, instance, "assay", tags=span("A1", "A2"))
        with kept_open(instance):
            tell(project, instance, "assay", ["A3"])
    finally:
        event.remove(Engine, "before_cursor_execute", noted)
    # Calls end one after another; in the end all three are told.
    assert {count for asset, count in seen if asset == "counted"} <= {1, 2, 3} and ("counted", 3) in seen
    assert ("assay", 2) in seen and ("assay", 3) in seen


def test_a_run_that_has_ended_has_its_events(project: Project, instance: dg.DagsterInstance) -> None:
    """As another process sees them, which may be what a crash leaves."""
    seen: list[tuple[str, int]] = []

    def noted(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if statement.startswith("UPDATE runs SET") and "SUCCESS" in values:
            run_id = next(one for one in values if isinstance(one, str) and len(one) == 36)
            with closing(sqlite3.connect(instance.event_log_storage.path_for_shard(run_id))) as other:  # type: ignore[attr-defined]
                asked = "SELECT count(*) FROM event_logs WHERE dagster_event_type = 'PIPELINE_SUCCESS'"
                seen.append((run_id, other.execute(asked).fetchone()[0]))

    event.listen(Engine, "before_cursor_execute", noted)
    try:
        done = run_kept(project, instance, "counted", partition_key="A1")
    finally:
        event.remove(Engine, "before_cursor_execute", noted)
    assert seen == [(done.run_id, 1)]


def test_while_a_call_runs_others_can_write_into_the_event_log(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = instance.event_log_storage.path_for_shard("index")  # type: ignore[attr-defined]
    writes = f"""    import sqlite3
    with sqlite3.connect({place!r}, timeout=1) as other:
        other.execute("CREATE TABLE IF NOT EXISTS others (a)")
        begun = other.execute("SELECT count(*) FROM event_logs WHERE event LIKE '%PLANNED%'").fetchone()
        assert begun[0], "what was said before is not seen"
    n = len("""
    project = make_project(tmp_path / "toy", steps=STEPS.replace("    n = len(", writes, 1))
    add_missing(project, instance)
    assert run_kept(project, instance, "counted", partition_key="A1").success


def test_what_fails_is_taken_back_by_itself(project: Project, instance: dg.DagsterInstance) -> None:
    storage: Any = instance.event_log_storage
    with kept_open(instance):
        instance.report_runless_asset_event(dg.AssetMaterialization("one"))
        with suppress(KeyError), storage.index_connection() as connection:
            connection.execute(text("INSERT INTO asset_keys (asset_key) VALUES ('other')"))
            raise KeyError
        assert told(instance, "one") == 0, "not committed yet, so that it is known to be kept"
    assert told(instance, "one") == 1
    assert [key.to_user_string() for key in instance.all_asset_keys()] == ["one"]


def test_the_file_of_each_run_has_the_tables_of_the_first(project: Project, instance: dg.DagsterInstance) -> None:
    found = []
    for key in ("A1", "A2"):
        done = run_kept(project, instance, "counted", partition_key=key)
        with closing(sqlite3.connect(instance.event_log_storage.path_for_shard(done.run_id))) as connection:  # type: ignore[attr-defined]
            tables = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
            tables += connection.execute("SELECT version_num FROM alembic_version").fetchall()
            found.append((tables, connection.execute("PRAGMA journal_mode").fetchone()))
        assert len(instance.all_logs(done.run_id)) > 10
    assert found[0] == found[1] and len(found[0][0]) > 10


def test_a_shells_run_starts_no_process_to_show_what_is_printed(
    tmp_path: Path, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What calls print is in the run's file all the same, and not on the terminal."""
    siblings = """    import os, pathlib
    for one in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if (one / "stat").read_text().rpartition(") ")[2].split()[1] == os.environ["THE_RUN"]:
                print("started:", (one / "cmdline").read_text().replace(chr(0), " "))
        except OSError:
            continue
    print("counting", call.entity)
    n = len("""
    monkeypatch.setenv("THE_RUN", str(os.getpid()))
    project = make_project(tmp_path / "toy", steps=STEPS.replace("    n = len(", siblings, 1))
    add_missing(project, instance)
    with beside_terminal(instance):
        done = run(project, instance, "counted", partition_key="A1", tags={SHELL_TAG: "ct run"})
    captured = next(one for one in done.all_events if one.event_type_value == "LOGS_CAPTURED").logs_captured_data
    key = [done.run_id, "compute_logs", captured.file_key]
    printed = (instance.compute_log_manager.get_log_data(key).stdout or b"").decode()
    started = [line for line in printed.splitlines() if line.startswith("started:")]
    assert any("ctcore.execution.fork_server" in line for line in started), "others may be of tests before"
    assert not [line for line in started if "tail" in line or "watch_orphans" in line]
    assert "==> counted/A1: made <==\n" in printed and "counting A1\n" in printed
    assert instance.compute_log_manager.is_capture_complete(key)
    assert "counting" not in capfd.readouterr().out


def test_the_registry_told_without_a_run_is_told_the_same(project: Project, instance: dg.DagsterInstance) -> None:
    def latest(asset: str, key: str) -> dg.AssetMaterialization:
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[key])
        found = instance.fetch_materializations(wanted, limit=1).records[0].asset_materialization
        assert found is not None
        return found

    keys = {"patient": ["P1", "P2"], "specimen": ["S1", "S2"], "assay": ["A1", "A2", "A3"], "reference": ["genome"]}
    assert unreported_nodes(project) == keys
    for asset, some in keys.items():
        tell(project, instance, asset, some)
    assert unreported_nodes(project) == {} and instance.get_runs() == []
    told_alone = {(asset, key): latest(asset, key) for asset, some in keys.items() for key in some}
    looks = [dg.AssetCheckKey(dg.AssetKey(asset), "usable") for asset in ("patient", "specimen", "assay")]
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(looks)
    assert [found[key].status.value for key in looks] == ["SUCCEEDED"] * 3
    for asset in ("patient", "specimen", "assay"):
        run(project, instance, asset, tags=span(keys[asset][0], keys[asset][-1]))
        for key in keys[asset]:
            assert (latest(asset, key).metadata, latest(asset, key).tags) == (
                told_alone[(asset, key)].metadata,
                told_alone[(asset, key)].tags,
            )
