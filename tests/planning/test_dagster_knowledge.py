"""Whether there is something to tell Dagster, asked of its real storage; and `ct run` where there is nothing to do."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from ct_assets.partitions import add_missing
from ctcore.cohorts.registry import entries, mark_reported
from ctcore.execution import ledger
from ctcore.intake.raw_files import look
from ctcore.intake.register import register_entity
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.planning.dagster_knowledge import is_told
from ctcore.project import Project
from ctcore.steps.graph import REGISTRY
from tests.helpers.kit import again, fail, make, make_all, make_project
from tests.helpers.shell import ct, quiet_dagster


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dg.DagsterInstance]]:
    """A project that is made, and its Dagster, which knows all of it."""
    project = make_project(tmp_path_factory.mktemp("told") / "toy")
    quiet_dagster(project.root)
    make_all(project)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(project.dagster_home))
        patch.delenv("CT_POSTGRES_URL", raising=False)
        with dg.DagsterInstance.get() as instance:
            add_missing(project, instance)
            tell(project)
            yield project.root, instance


def tell(project: Project) -> None:
    """As after the events."""
    for asset in REGISTRY:
        mark_reported(project, entries(project, asset))
    with project.catalog.read() as connection:
        made = connection.exec_driver_sql("SELECT id FROM materialization").scalars().all()
    ledger.mark_reported(project, made)


Telling = Callable[[Project, dg.DagsterInstance], object]
UNTOLD: dict[str, Telling] = {
    "a partition": lambda project, instance: instance.delete_dynamic_partition("toy.assays", "A2"),
    "a run that is open": lambda project, instance: instance.add_run(
        dg.DagsterRun(job_name="x", status=dg.DagsterRunStatus.STARTED)
    ),
    "a making": lambda project, instance: (rework(project), make(again(project), "counted", "A1")),
    "the registry": lambda project, instance: register_entity(
        project, "patient", "P1", values={"age": "41"}, allowed=AllowedChanges(update=frozenset(["patient.age"]))
    ),
}


def rework(project: Project) -> None:
    (project.root / "reads/A1.txt").write_text("other\n")
    look(project)


def test_nothing_is_untold_and_each_kind_of_news_is_seen(dagster: tuple[Path, dg.DagsterInstance]) -> None:
    root, instance = dagster
    for kind, happens in UNTOLD.items():
        assert is_told(again(Project.find(root)), with_registry=True), f"before {kind}"
        happens(Project.find(root), instance)
        assert not is_told(Project.find(root), with_registry=True), kind
        for run in instance.get_runs():
            instance.delete_run(run.run_id)
        make_all(Project.find(root))
        tell(Project.find(root))
        add_missing(Project.find(root), instance)
    assert is_told(Project.find(root), with_registry=True)


@pytest.mark.parametrize("text", ["", "storage:\n  sqlite:\n    base_dir: /elsewhere\n", "# class: CtStorage\n"])
def test_a_storage_that_is_not_ours_is_not_read(dagster: tuple[Path, dg.DagsterInstance], text: str) -> None:
    project = Project.find(dagster[0])
    settings = project.dagster_home / "dagster.yaml"
    kept = settings.read_text()
    settings.write_text(text)
    assert not is_told(project, with_registry=True)
    settings.write_text(kept)


def test_without_tables_nothing_counts_as_told(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    quiet_dagster(project.root)
    tell(project)
    assert not is_told(project, with_registry=True)


def test_with_nothing_to_do_a_run_starts_no_process(dagster: tuple[Path, dg.DagsterInstance]) -> None:
    root, _ = dagster

    def run(*words: str) -> tuple[int, str]:
        before = os.times()
        said = ct("-C", root, "run", *words)
        after = os.times()
        assert (before.children_user, before.children_system) == (after.children_user, after.children_system)
        return said.code, said.err

    assert run() == (0, "everything is fresh: nothing to do\n")
    assert run("counted/A1") == (0, "everything is fresh: nothing to do\n")
    plan = root / "plan.json"
    assert ct("-C", root, "plan", "--save", plan).code == 0
    assert run("--plan", str(plan)) == (0, "everything is fresh: nothing to do\n")
    reads = root / "reads/A3.txt"
    reads.rename(root / "kept")
    code, said = run()
    assert code == 3 and said.endswith("nothing to do; 1 problem of raw files or references\n"), said
    (root / "kept").rename(reads)
    look(Project.find(root))
    fail(Project.find(root), "A3")
    code, said = run("-s", "counted/A3*")
    assert code == 0 and said.startswith("nothing may run: 1 node excluded\n  counted/A3: "), said


def test_dagsters_tables_on_postgresql_are_read_too(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_POSTGRES_URL", postgres_url)
    project = make_project(tmp_path / "toy")
    quiet_dagster(project.root)
    monkeypatch.setenv("DAGSTER_HOME", str(project.dagster_home))
    assert not is_told(project, with_registry=False)
    with dg.DagsterInstance.get() as instance:
        add_missing(project, instance)
        assert is_told(project, with_registry=False) and not is_told(project, with_registry=True)
        instance.delete_dynamic_partition("toy.assays", "A2")
        assert not is_told(project, with_registry=False)
