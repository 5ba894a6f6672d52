"""What is asked of a large cohort grows with its size and not faster, counted in what can be counted."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from benchmarks.cohort import made_project
from benchmarks.measure import growth
from ctcore.catalog.tables import artifact, reference
from ctcore.cohorts.lookup import find_node
from ctcore.cohorts.partitions import partitions
from ctcore.inputs.current import forget
from ctcore.inputs.key import prepare
from ctcore.intake.raw_files import look
from ctcore.lineage.explain import why
from ctcore.project import Project
from ctcore.staleness.accept import KINDS, accept, propose, undo
from ctcore.staleness.verdicts import evaluate
from tests.helpers.costs import Costs, costs
from tests.helpers.kit import STEPS, again

SIZES = (300, 1200)
MORE_STEPS = f"""{STEPS}

@step(level="patient", inputs={{"counts": "counted"}}, outputs={{"n": "n.txt"}})
def person(call: Call) -> None:
    call.out("n").write_text("all assays of a patient")


@step(level="assay", inputs={{"person": "person"}}, columns=["patient.sex"], outputs={{"n": "n.txt"}})
def compared(call: Call) -> None:
    call.out("n").write_text("an assay beside its patient")
"""

Cohorts = Callable[[int], tuple[Project, int]]


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> Cohorts:
    """Cohorts of so many assays with all made, and how many nodes that is."""
    folder = tmp_path_factory.mktemp("growth")

    @cache
    def made(assays: int) -> tuple[Project, int]:
        return made_project(folder / str(assays), assays, MORE_STEPS)

    return made


def anew(cohorts: Cohorts, assays: int, ask: Callable[[Project], Any]) -> tuple[int, Costs]:
    """What it costs a process that just began: how many nodes there are, and the costs."""
    project, total = cohorts(assays)
    begun = again(project)
    begun.recipes
    return total, costs(begun, lambda: ask(_forgetful(begun)))


def _forgetful(begun: Project) -> Project:
    """Another process with the same connections: nothing that was kept of the ledger is there."""
    forget()
    shutil.rmtree(begun.work / "mirror", ignore_errors=True)
    other = again(begun)
    other.__dict__["catalog"] = begun.catalog
    return other


def _is_linear(found: list[tuple[int, Costs]]) -> None:
    small, large = found
    assert large[1].statements == small[1].statements, f"statements must not be one a node: {found}"
    for name in ("rows", "instructions", "calls", "peak"):
        pair = [(total, max(getattr(one, name), 1)) for total, one in (small, large)]
        most = 1.5 if name == "peak" else 1.15  # Python's tables grow by doubling
        assert growth(*pair) < most, f"{name}: {found}"


@pytest.mark.parametrize("state", ["fresh", "stale"])
def test_evaluating_four_times_the_nodes_costs_four_times(tmp_path: Path, state: str) -> None:
    found = []
    for assays in SIZES:
        project, total = made_project(tmp_path / str(assays), assays, MORE_STEPS)
        if state == "stale":
            with project.catalog.write() as writer:
                writer.execute(update(reference).values(version="2"))
                writer.event("reference", "reference/genome", {"key": "genome"})
        assert len(evaluate(project).stale()) == (total if state == "stale" else 0)
        found.append(anew(lambda _, made=(project, total): made, assays, evaluate))
    _is_linear(found)


def test_accepting_four_times_the_nodes_costs_four_times(tmp_path: Path) -> None:
    found = []
    for assays in SIZES:
        project, _ = made_project(tmp_path / str(assays), assays)
        with project.catalog.write() as writer:
            writer.execute(update(reference).values(version="2"))
            writer.event("reference", "reference/genome", {"key": "genome"})
        keys = {"counted": set(partitions(project, "assay"))}

        def accepts(project: Project = project, keys: dict[str, set[str]] = keys) -> None:
            assert len(accept(project, propose(project, keys), "only a name").reasons) == len(keys["counted"])
            assert evaluate(project).stale() == []
            undo(project, keys, frozenset(KINDS), "and back")

        found.append((assays, costs(project, accepts)))
    pair = [(assays, one.instructions) for assays, one in found]
    assert growth(*pair) < 1.15, found


@pytest.mark.parametrize("node", ["counted/A7", "merged/S7", "person/P7", "compared/A7", "joined/all"])
def test_why_of_a_node_is_few_statements_and_linear(cohorts: Cohorts, node: str) -> None:
    _is_linear([anew(cohorts, assays, lambda one: why(one, find_node(one, node))) for assays in SIZES])


@pytest.mark.parametrize("step", ["counted", "merged", "joined", "person", "compared"])
def test_the_calls_of_a_step_are_few_statements_and_linear(cohorts: Cohorts, step: str) -> None:
    keys = {assays: partitions(project := cohorts(assays)[0], project.steps[step].level) for assays in SIZES}
    found = [anew(cohorts, assays, lambda one, a=assays: prepare(one, one.steps[step], keys[a])) for assays in SIZES]
    _is_linear(found)


def _one_by_one(project: Project) -> None:
    with project.catalog.read() as connection:
        for key in partitions(project, "assay"):
            connection.execute(select(artifact).where(artifact.c.partition == key)).all()


def _each_with_each(project: Project) -> None:
    keys = partitions(project, "patient")
    assert sum(len(one) > len(other) for one in keys for other in keys)


def _table_of_each_with_each(project: Project) -> None:
    bytes(len(partitions(project, "assay")) ** 2)


def _join_of_each_with_each(project: Project) -> None:
    with project.catalog.read() as connection:
        other = artifact.alias()
        connection.execute(select(func.count()).select_from(artifact.join(other, artifact.c.key < other.c.key)))


@pytest.mark.parametrize("ask", [_one_by_one, _each_with_each, _table_of_each_with_each, _join_of_each_with_each])
def test_what_grows_faster_is_seen(cohorts: Cohorts, ask: Callable[[Project], Any]) -> None:
    with pytest.raises(AssertionError):
        _is_linear([anew(cohorts, assays, ask) for assays in SIZES])


def test_asking_again_after_one_change_reads_what_changed(cohorts: Cohorts) -> None:
    """A process that asked before, and then one file is another: it costs the same in a cohort four times as large."""
    found = []
    for assays in SIZES:
        project, _ = cohorts(assays)
        look(project)
        evaluate(project)
        (project.root / "reads/A0.txt").write_text("other reads of A0\n")
        look(project)
        found.append(costs(project, lambda project=project: evaluate(project)))
    assert found[1].rows <= found[0].rows * 1.2 + 10, found
    assert found[1].instructions <= found[0].instructions * 1.2 + 1000, found
