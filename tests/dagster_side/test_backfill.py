"""A backfill of scattered partitions is few runs, each of which makes what was asked for and nothing else; and what
Dagster writes before a run starts is one transaction."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.automation_tick_evaluation_context import build_run_requests_with_backfill_policies
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.definitions.partitions.context import partition_loading_context
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, select

from ct_assets.definitions import build_assets, build_resources
from ct_assets.partitions import add_missing
from ct_instance.backfill_ranges import _requests
from ctcore.catalog.tables import materialization
from ctcore.planning.partition_ranges import ASKED_TAG, asked_text
from ctcore.project import Project
from ctcore.projects.dagster_home import environment
from tests.helpers.in_dagster import RANGE, run, span
from tests.helpers.kit import STEPS, TOML, assay, make_project, write_sheet
from tests.helpers.shell import ROOT, quiet_dagster, shell
from tests.helpers.world import PATIENCE_S, daemon

MANY = 12
NAMES = [f"A{n:02}" for n in range(MANY)]
ROWS = [assay(f"P{n}", f"S{n}", name, sex="F") for n, name in enumerate(NAMES)]
PER_RUN = 5
OWN = dg.AssetKey("own")


@pytest.fixture
def project(tmp_path: Path, instance: dg.DagsterInstance) -> Project:
    toml = TOML.replace("[run]", f"[run]\npartitions_per_run = {PER_RUN}")
    made = make_project(tmp_path / "toy", ROWS, toml=toml)
    add_missing(made, instance)
    return made


def definitions(project: Project) -> dg.Definitions:
    """The project's assets, and one of a group's own over the same partitions."""

    @dg.asset(
        key=OWN,
        partitions_def=dg.DynamicPartitionsDefinition(name=f"{project.id}.assays"),
        backfill_policy=dg.BackfillPolicy.multi_run(PER_RUN),
    )
    def own() -> None: ...

    return dg.Definitions(assets=[*build_assets(project), own], resources=build_resources(project))


@pytest.fixture
def graph(project: Project) -> Any:
    return definitions(project).resolve_asset_graph()


def requests(
    graph: Any, instance: dg.DagsterInstance, asked: dict[str, set[str]]
) -> list[tuple[list[str], list[str], str | None]]:
    """What a backfill launches for these partitions: assets, range and tag of each run."""
    keys = [AssetKeyPartitionKey(dg.AssetKey(asset), one) for asset, some in asked.items() for one in some]
    with partition_loading_context(dynamic_partitions_store=instance):  # as in the daemon
        found = list(_requests(build_run_requests_with_backfill_policies, keys, graph, instance))
    return [
        (
            sorted(key.to_user_string() for key in one.asset_selection or ()),
            NAMES[NAMES.index(one.tags[RANGE[0]]) : NAMES.index(one.tags[RANGE[1]]) + 1],
            one.tags.get(ASKED_TAG),
        )
        for one in found
    ]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.sets(st.sampled_from(NAMES), min_size=1))
def test_runs_cover_what_was_asked_for_once(graph: Any, instance: dg.DagsterInstance, chosen: set[str]) -> None:
    made: list[str] = []
    for assets, covered, said in requests(graph, instance, {"counted": chosen}):
        assert assets == ["counted"] and len(covered) <= PER_RUN + 1  # the depth of the step is added
        mine = [key for key in covered if key in chosen]
        assert said == (asked_text(covered, chosen) if len(mine) < len(covered) else None)
        made += mine
    assert made == sorted(chosen)
    assert len(requests(graph, instance, {"counted": chosen})) <= -(-MANY // PER_RUN)


def test_a_groups_own_asset_is_launched_as_dagster_does(graph: Any, instance: dg.DagsterInstance) -> None:
    """It knows nothing of what a run may pass over."""
    chosen = {NAMES[0], NAMES[2], NAMES[4]}
    found = requests(graph, instance, {"own": chosen, "counted": chosen})
    assert [covered for assets, covered, _ in found if assets == ["own"]] == [[NAMES[0]], [NAMES[2]], [NAMES[4]]]
    assert [(covered, bool(said)) for assets, covered, said in found if assets == ["counted"]] == [(NAMES[:5], True)]


def made(project: Project) -> list[str]:
    with project.catalog.read() as connection:
        return sorted(connection.execute(select(materialization.c.partition)).scalars())


def test_a_run_makes_what_its_tag_says(project: Project, instance: dg.DagsterInstance) -> None:
    tags = span(NAMES[0], NAMES[4]) | {ASKED_TAG: asked_text(NAMES[:5], {NAMES[1], NAMES[4]})}
    assert run(project, instance, "counted", tags=tags).success
    assert made(project) == [NAMES[1], NAMES[4]]
    assert instance.get_materialized_partitions(dg.AssetKey("counted")) == {NAMES[1], NAMES[4]}


def test_a_run_whose_range_has_others_now_makes_nothing(project: Project, instance: dg.DagsterInstance) -> None:
    tags = span(NAMES[0], NAMES[4]) | {ASKED_TAG: asked_text(["gone", *NAMES[1:5]], {NAMES[1], NAMES[4]})}
    ended = run(project, instance, "counted", tags=tags, raise_on_error=False)
    assert not ended.success and made(project) == []
    assert "launch them again" in str(ended.failure_data_for_node("counted"))


@pytest.fixture(params=["sqlite", "postgresql"])
def opened(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """A Dagster as every process of a project opens it."""
    if request.param == "postgresql":
        monkeypatch.setenv("CT_POSTGRES_URL", request.getfixturevalue("postgres_url"))
    project = make_project(tmp_path / "toy", ROWS)
    monkeypatch.setenv("DAGSTER_HOME", str(quiet_dagster(project.root) / "dagster_home"))
    with dg.DagsterInstance.get() as instance:
        add_missing(project, instance)
        yield instance


def planned(instance: dg.DagsterInstance, project: Project, tags: dict[str, str]) -> tuple[list[str], int]:
    """The partitions that Dagster plans for a run with these tags, and how many transactions that takes."""
    job = definitions(project).resolve_implicit_global_asset_job_def()
    commits: list[object] = []

    def committed(connection: Connection) -> None:
        commits.append(connection)

    event.listen(Engine, "commit", committed)
    try:
        ended = instance.create_run_for_job(job, tags=tags, asset_selection={dg.AssetKey("counted")})
    finally:
        event.remove(Engine, "commit", committed)
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    events = [one.dagster_event for one in instance.all_logs(ended.run_id, of_type=kind)]
    indexed = instance.get_event_records(dg.EventRecordsFilter(kind, dg.AssetKey("counted")))
    found = [one.partition or "" for one in events if one is not None]
    assert sorted(found) == sorted(one.partition_key or "" for one in indexed if one.run_id == ended.run_id)
    return sorted(found), len(commits)


def test_planned_events_are_one_transaction_a_run(opened: dg.DagsterInstance, tmp_path: Path) -> None:
    project = Project.find(tmp_path / "toy")
    few, commits = planned(opened, project, span(NAMES[0], NAMES[1]))
    many, as_many = planned(opened, project, span(NAMES[0], NAMES[-1]))
    assert (few, many) == (NAMES[:2], NAMES)
    assert as_many <= commits  # the first run writes its job's snapshot, too


def test_what_a_run_passes_over_is_not_planned(opened: dg.DagsterInstance, tmp_path: Path) -> None:
    """A run that fails would show it as failed, and one that waits as under way."""
    said = {ASKED_TAG: asked_text(NAMES[:5], {NAMES[1], NAMES[4]})}
    project = Project.find(tmp_path / "toy")
    assert planned(opened, project, span(NAMES[0], NAMES[4]) | said)[0] == [NAMES[1], NAMES[4]]
    other = {ASKED_TAG: asked_text(["gone", *NAMES[1:5]], {NAMES[1], NAMES[4]})}  # the run will say so
    assert planned(opened, project, span(NAMES[0], NAMES[4]) | other)[0] == NAMES[:5]


LAUNCH = """
mutation Launch($these: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $these) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""


@pytest.mark.daemon
@pytest.mark.xdist_group("daemon")
def test_scattered_partitions_from_the_dialog_are_few_runs(tmp_path: Path) -> None:
    """By the page's own mutation, with the daemon: one run makes them, and nothing else is made."""
    root = tmp_path / "cohort"
    assert shell("init", root).code == 0
    (root / "ct.toml").write_text(TOML.replace("[run]", "[run]\npause = true"))
    (root / "genome.txt").write_text("ACGT\n")
    (root / "steps/toy.py").write_text(STEPS)
    assert shell("-C", root, "register", write_sheet(root, ROWS)).code == 0
    chosen = NAMES[::3]
    with daemon(Project.find(root)), dg.DagsterInstance.get() as instance:
        these = {"assetSelection": [{"path": ["counted"]}], "partitionNames": chosen, "title": "some", "tags": []}
        command = [Path(sys.executable).with_name("dagster-graphql"), "-w", "workspace.yaml", "-t", LAUNCH]
        variables = {**environment(Project.find(root)), "PYTHONPATH": str(ROOT)}
        said = subprocess.run(
            [*command, "-v", json.dumps({"these": these})], cwd=root, env=variables, capture_output=True, check=False
        )
        assert b"LaunchBackfillSuccess" in said.stdout, said
        until = time.monotonic() + PATIENCE_S
        while not instance.get_backfills()[0].status.value.startswith("COMPLETED"):
            assert time.monotonic() < until, [run.status for run in instance.get_runs()]
            time.sleep(0.5)
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": instance.get_backfills()[0].backfill_id}))
        assert [run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS]
        assert instance.get_materialized_partitions(dg.AssetKey("counted")) == set(chosen)
    assert made(Project.find(root)) == chosen
