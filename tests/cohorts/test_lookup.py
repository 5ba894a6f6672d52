"""From what a person types to nodes; partitions of a level; what belongs to a patient."""

from pathlib import Path

import pytest

from ctcore.cohorts.descendants import descendants_of
from ctcore.cohorts.lookup import find_node, find_nodes
from ctcore.cohorts.partitions import is_empty, partitions
from ctcore.errors import CtError
from ctcore.intake.register import register
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.project import Project
from tests.helpers.kit import TOML, assay, make_project, write_sheet


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("toy"))


def empty(root: Path) -> Project:
    (root / "ct.toml").write_text(TOML)
    return Project.find(root)


def test_partitions_are_in_the_order_of_registration(project: Project, tmp_path: Path) -> None:
    assert partitions(project, "patient") == ["P1", "P2"]
    assert partitions(project, "assay") == ["A1", "A2", "A3"] and partitions(project, "cohort") == ["all"]
    assert not is_empty(project) and is_empty(empty(tmp_path))


def test_a_node_has_its_full_name_or_is_a_steps_only_one(project: Project) -> None:
    assert find_nodes(project, ["counted/A1", " merged/S2 ", "joined", "patient/P1"]) == [
        ("counted", "A1"),
        ("merged", "S2"),
        ("joined", "all"),
        ("patient", "P1"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("counted", "counted has 3 partitions; name one, as in counted/A1"),
        ("count", "did you mean 'counted'?"),
        ("A1", "did you mean 'assay/A1'?"),
        ("counted/A9", "no assay 'A9'"),
        ("merged/A1", "no specimen 'A1'"),
        ("count/A1", "no step 'count'"),
        ("counted/", "is not a node (step/partition); steps: counted, merged, joined"),
        ("joined/women", "no cohort 'women'"),
    ],
)
def test_a_name_of_nothing_is_told_beside_what_was_meant(project: Project, text: str, said: str) -> None:
    with pytest.raises(CtError) as refused:
        find_node(project, text)
    assert said in str(refused.value)


def test_what_was_moved_away_belonged_to_the_old_parent(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    with project.catalog.read() as connection:
        now, before = descendants_of(connection, [("patient", "P1")])
    assert now == {("patient", "P1"), ("specimen", "S1"), ("assay", "A1"), ("assay", "A2")} and before == {}
    moved = [assay("P2", "S1", "A1", sex="M", age="50")]
    register(project, write_sheet(project.root, moved), AllowedChanges(reparent=frozenset({"S1"})))
    with project.catalog.read() as connection:
        now, before = descendants_of(connection, [("patient", "P1")])
    assert now == {("patient", "P1")}
    assert set(before) == {("specimen", "S1"), ("assay", "A1"), ("assay", "A2")}
    assert " belonged to … until 20" in str(before["assay", "A1"])
