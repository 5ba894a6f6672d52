"""What is asked of a large cohort grows with its size and not faster, counted in SQLite's own instructions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, update

from benchmarks.cohort import made_project
from benchmarks.measure import growth
from ctcore.accept import KINDS, accept, propose, undo
from ctcore.batches import partitions
from ctcore.catalog.tables import reference
from ctcore.explain import why
from ctcore.nodes import find_node
from ctcore.project import Project
from ctcore.staleness import evaluate
from tests.kit import STEPS

STRIDE = 100
MORE_STEPS = f"""{STEPS}

@step(level="patient", inputs={{"counts": "counted"}}, outputs={{"n": "n.txt"}})
def person(call: Call) -> None:
    call.out("n").write_text("all assays of a patient")


@step(level="assay", inputs={{"person": "person"}}, columns=["patient.sex"], outputs={{"n": "n.txt"}})
def compared(call: Call) -> None:
    call.out("n").write_text("an assay beside its patient")
"""


def instructions(project: Project, function: Callable[[], Any]) -> int:
    """How many virtual machine instructions SQLite runs for a call, to the nearest hundreds."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += STRIDE
        return 0

    def watch(connection: Any, _record: Any) -> None:
        connection.set_progress_handler(tick, STRIDE)

    event.listen(project.catalog.engine, "connect", watch)
    project.catalog.engine.dispose()
    function()
    return count


@pytest.mark.parametrize("state", ["fresh", "stale"])
def test_evaluating_four_times_the_nodes_costs_about_four_times_as_much(tmp_path: Path, state: str) -> None:
    found = []
    for assays in (300, 1200):
        project, total = made_project(tmp_path / str(assays), assays, MORE_STEPS)
        if state == "stale":
            with project.catalog.write() as writer:
                writer.execute(update(reference).values(version="2"))
        found.append((total, instructions(project, lambda project=project: evaluate(project))))
    assert growth(*found) < 1.15, found


def test_accepting_four_times_the_nodes_costs_about_four_times_as_much(tmp_path: Path) -> None:
    found = []
    for assays in (300, 1200):
        project, _ = made_project(tmp_path / str(assays), assays)
        with project.catalog.write() as writer:
            writer.execute(update(reference).values(version="2"))
        keys = {"counted": set(partitions(project, "assay"))}

        def accepts(project: Project = project, keys: dict[str, set[str]] = keys) -> None:
            assert len(accept(project, propose(project, keys), "only a name").reasons) == len(keys["counted"])
            assert evaluate(project).stale() == []
            undo(project, keys, frozenset(KINDS), "and back")

        found.append((assays, instructions(project, accepts)))
    assert growth(*found) < 1.15, found


@pytest.mark.parametrize("node", ["counted/A7", "merged/S7", "person/P7", "compared/A7"])
def test_why_of_a_node_costs_the_same_in_a_larger_cohort(tmp_path: Path, node: str) -> None:
    found = []
    for assays in (300, 1200):
        project, _ = made_project(tmp_path / str(assays), assays, MORE_STEPS)
        found.append(instructions(project, lambda project=project: why(project, find_node(project, node))))
    assert found[1] < found[0] * 1.2, found
