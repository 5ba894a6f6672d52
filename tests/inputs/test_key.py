"""Keys of calls, what is found made before, who is left out and inside."""

from pathlib import Path

import numpy as np
import pytest

from ctcore.inputs.contributors import Contributors
from ctcore.inputs.current import current_inputs
from ctcore.inputs.exclusions import why_not_used
from ctcore.inputs.key import Edge, cache_hits, current_edges, key_of, prepare
from ctcore.inputs.resolve import Inputs
from ctcore.project import Project
from tests.helpers.kit import again, fail, make_all, make_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = make_project(tmp_path_factory.mktemp("toy"))
    make_all(made)
    return made


def test_swapped_inputs_are_another_call_their_order_is_not(project: Project) -> None:
    recipe = project.recipes["merged"]
    one, other = Edge("a", "counted", "A1", "1"), Edge("b", "counted", "A2", "2")
    key = key_of(recipe, ("merged", "S1"), [one, other])
    assert key == key_of(recipe, ("merged", "S1"), [other, one])
    swapped = [one._replace(input="b"), other._replace(input="a")]
    assert len({key, key_of(recipe, ("merged", "S1"), swapped), key_of(recipe, ("merged", "S2"), [one, other])}) == 3


def test_a_call_has_its_inputs_sorted_and_its_members(project: Project) -> None:
    found = prepare(project, project.steps["merged"], ["S1", "S9"])
    (call,) = found.ready.values()
    assert call.members == (("assay", "A1"), ("assay", "A2"))
    assert [(edge.input, edge.partition) for edge in call.edges if edge.asset == "counted"] == [
        ("counts", "A1"),
        ("counts", "A2"),
    ]
    assert str(found.blocked["S9"]) == "… is none: no specimen S9 is registered"
    assert current_edges(project, ("merged", "S1")) == list(call.edges)


def test_a_call_made_before_is_found_unless_files_are_lost(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    make_all(project)
    calls = list(prepare(project, project.steps["counted"], ["A1", "A2"]).ready.values())
    assert set(cache_hits(project, calls)) == {call.key for call in calls}
    other = list(prepare(project, project.steps["counted"], ["A1"], {"factor": 2}).ready.values())
    assert cache_hits(project, other) == {}
    for path in project.store.root.glob("counted/A1/*/n.txt"):
        path.parent.chmod(0o755)
        path.unlink()
    assert set(cache_hits(project, calls)) == {calls[1].key}


def test_who_fails_is_no_input_and_says_why(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    make_all(project)
    fail(project, "A3")
    blocked = prepare(again(project), project.steps["counted"], ["A3"]).blocked["A3"]
    assert str(blocked).startswith("… is excluded: ")
    with project.catalog.read() as connection:
        snapshot, inputs = current_inputs(project, connection)
        assert isinstance(inputs, Inputs)
        assert np.flatnonzero(inputs.nodes(project.steps["counted"])).tolist() == [0, 1]
        assert inputs.excluded(project.steps["merged"]).tolist() == [1]
        (reason,) = why_not_used(connection, inputs, None, "assay", 2)
        assert reason.kind == "excluded" and reason.node == ("assay", "A3")
        usable = Contributors(
            lambda: connection,
            snapshot,
            inputs,
            lambda step, level: inputs.hierarchy.usable[level] if level != "cohort" else np.ones(1, bool),
        )
        assert usable.permitted_nodes("counted").tolist() == [True, True, False]
        assert usable.permitted_nodes("joined").tolist() == [False]
        assert usable.ever["merged"] == {"S2"}
        assert Contributors.permitted(lambda: connection, snapshot, inputs, "joined").permitted_nodes("merged").all()
