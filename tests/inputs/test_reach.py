"""What nodes would be made from today, by the steps' declarations and the registry."""

from pathlib import Path

import pytest

from ctcore.inputs.current import current_inputs
from ctcore.inputs.reach import with_ancestors, with_descendants
from ctcore.project import Project
from tests.helpers.kit import fail, make_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("toy"))


def test_a_cohorts_node_reaches_all_that_it_is_made_from(project: Project) -> None:
    found = with_ancestors(project, {"joined": {"all"}})
    assert found == {"joined": {"all"}, "merged": {"S1", "S2"}, "counted": {"A1", "A2", "A3"}}
    assert with_ancestors(project, {"merged": {"S1"}}) == {"merged": {"S1"}, "counted": {"A1", "A2"}}


def test_an_assay_reaches_what_is_made_from_it_and_no_more(project: Project) -> None:
    assert with_descendants(project, {"counted": {"A3"}}) == {"counted": {"A3"}, "merged": {"S2"}, "joined": {"all"}}
    assert with_descendants(project, {"counted": {"A9"}}) == {}


def test_who_may_not_be_used_is_no_source(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    fail(project, "A1", "S2")
    assert with_ancestors(project, {"joined": {"all"}}) == {"joined": {"all"}, "merged": {"S1"}, "counted": {"A2"}}


def test_one_reading_of_the_catalog_gives_snapshot_and_inputs(project: Project) -> None:
    with project.catalog.read() as connection:
        found, _ = current_inputs(project, connection)
    assert [found.name("counted", at) for at in range(3)] == ["A1", "A2", "A3"]
    assert found.locate("counted", ["A3", "A9"])[0] == 2
