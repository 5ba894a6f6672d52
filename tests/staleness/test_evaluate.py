"""Which parts of a recipe differ, and that a node's verdict does not depend on the nodes beside it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctcore.inputs.current import current_inputs
from ctcore.intake.raw_files import look
from ctcore.intake.register import register
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.project import Project
from ctcore.snapshot.snapshot import CatalogChanges
from ctcore.staleness.evaluate import BIT, KINDS, Evaluator, Kinds, differing_parts, evaluate_nodes
from ctcore.steps.graph import Recipe
from ctcore.store.digest import canonical_json
from tests.helpers.kit import Inline, assay, change, make, make_project, write_sheet

VALUES = st.dictionaries(st.sampled_from("ab"), st.one_of(st.integers(0, 2), st.sampled_from(["", "1"])), max_size=2)
RECIPES = st.builds(lambda code, params, env: Recipe("one", code, params, env), st.sampled_from("xy"), VALUES, VALUES)


def row(one: Recipe) -> Any:
    """The recipe as the catalog has it."""
    texts = [canonical_json(dict(part)).decode() for part in (one.parameters, one.environment)]
    return SimpleNamespace(step=one.step, code=one.code, parameters=texts[0], environment=texts[1])


@given(RECIPES, RECIPES)
def test_a_recipe_differs_in_just_the_parts_that_differ(used: Recipe, today: Recipe) -> None:
    wanted = {"code": used.code != today.code, "parameters": used.parameters != today.parameters}
    wanted["environment"] = used.environment != today.environment
    found = differing_parts(row(used), today)
    assert found == [part for part, differs in wanted.items() if differs]
    assert bool(found) == (used.digest != today.digest), "the digest differs if and only if a part does"


def test_each_kind_of_reason_has_a_bit_of_its_own() -> None:
    dtype = np.dtype(Kinds.__args__[1].__args__[0])  # type: ignore[attr-defined]
    assert len(set(BIT.values())) == len(KINDS) and sum(BIT.values()) <= np.iinfo(dtype).max


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two assays and a specimen are made; then A2 has other bytes and P2 another sex, and an assay is new."""
    project = make_project(tmp_path_factory.mktemp("judged") / "toy")
    make(project, "counted", "A2", "A3", runner=Inline(project))
    make(project, "merged", "S2", runner=Inline(project))
    change(project.root / "reads/A2.txt")
    look(project)
    rows = [assay("P1", "S1", "A1", sex="F", age="40"), assay("P1", "S1", "A2", sex="F", age="40")]
    rows += [assay("P2", "S2", "A3", sex="F", age="50"), assay("P3", "S3", "A4", sex="M")]
    register(project, write_sheet(project.root, rows), allowed=AllowedChanges(update=frozenset({"patient.sex"})))
    look(project)
    return project


@contextmanager
def judged(project: Project) -> Iterator[tuple[Evaluator, Mapping[str, Kinds]]]:
    """An evaluator, and the kinds of all nodes by one evaluation of everything."""
    with project.catalog.read() as connection:
        snapshot, inputs = current_inputs(project, connection)
        state = evaluate_nodes(project, connection, snapshot, inputs, None, CatalogChanges())
        judge = Evaluator(project, connection, snapshot, inputs)
        judge.kinds = dict(state.kinds)
        yield judge, state.kinds


def kinds_of(bits: int) -> set[str]:
    return {kind for kind in KINDS if bits & BIT[kind]}


def test_a_node_has_the_same_verdict_alone_and_among_all(project: Project) -> None:
    with judged(project) as (judge, kinds):
        for step in project.steps:
            for at in np.flatnonzero(judge.inputs.nodes(step)):
                assert judge.of(step, np.array([at]))[0] == kinds[step.name][at], (step.name, at)


def test_the_kinds_are_those_of_what_changed(project: Project) -> None:
    with judged(project) as (judge, kinds):
        found = {
            (step.name, judge.snapshot.name(step.name, at)): kinds_of(int(kinds[step.name][at]))
            for step in project.steps
            for at in np.flatnonzero(judge.inputs.nodes(step)).tolist()
        }
    assert found == {
        ("counted", "A1"): {"missing"},
        ("counted", "A2"): {"input"},
        ("counted", "A3"): set(),
        ("counted", "A4"): {"missing"},
        ("merged", "S1"): {"missing", "upstream"},
        ("merged", "S2"): {"metadata"},
        ("merged", "S3"): {"missing", "upstream"},
        ("joined", "all"): {"missing", "upstream"},
    }
