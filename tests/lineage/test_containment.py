"""Which makings contain a person: by content. What was also made without them reveals nothing of them."""

from pathlib import Path

import pytest

from ctcore.intake.register import register
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.lineage.containment import Containment, cohort_derived_steps, containment_of, id_pattern
from ctcore.project import Project
from tests.helpers.kit import ROWS, STEPS, add, again, assay, fail, make_all, make_project, write_sheet

SAME = '''

@step(level="cohort", inputs={"specimens": "merged"}, outputs={"table": "table.tsv"})
def same(call: Call) -> None:
    """The same bytes, whoever is inside."""
    call.out("table").write_text("the same\\n")


@step(level="cohort", inputs={"before": "same"}, outputs={"table": "table.tsv"})
def after(call: Call) -> None:
    """What came before."""
    call.out("table").write_text(call.one("before")["table"].read_text() + str(call.params.again))
'''
AGAIN = """

@dataclass(frozen=True)
class Again:
    again: int = 1


"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    steps = STEPS + AGAIN + SAME.replace('{"before": "same"}', '{"before": "same"}, params=Again')
    return make_project(tmp_path / "toy", steps=steps)


def contained(project: Project, patient: str) -> Containment:
    with project.catalog.read() as connection:
        return containment_of(project, connection, patient)


def nodes(makings: Containment) -> list[str]:
    return sorted("/".join(one.node) for one in makings.makings.values())


OWN = ["counted/A1", "counted/A2", "merged/S1"]


def test_what_was_built_from_them_contains_them(project: Project) -> None:
    make_all(project)
    found = contained(project, "P1")
    assert nodes(found) == ["after/all", *OWN[:2], "joined/all", "merged/S1", "same/all"]
    assert found.own == {("patient", "P1"), ("specimen", "S1"), ("assay", "A1"), ("assay", "A2")}
    assert (found.gone, found.spared, found.moved, found.unsure) == (set(), {}, {}, set())
    assert found.left == found.makings and len(found.contents) == len(found.makings)


def test_content_that_was_also_made_without_them_ends_the_walk(project: Project) -> None:
    """The call that took them has them inside; of what was made from its bytes nobody can tell that it had."""
    make_all(project)
    fail(project, "P1")
    make_all(again(project))
    found = contained(project, "P1")
    assert nodes(found) == [*OWN[:2], "joined/all", "merged/S1", "same/all"]
    assert ["/".join(one.node) for one in found.spared.values() if one.asset == "after"] == ["after/all"]
    assert {asset for asset, _, _ in found.contents} == {"counted", "merged", "joined"}


def test_a_specimen_that_moved_is_named_and_not_theirs(project: Project) -> None:
    make_all(project)
    sheet = write_sheet(project.root, [row | {"patient_id": "P2", "sex": "M", "age": "50"} for row in ROWS])
    register(project, sheet, AllowedChanges(reparent=frozenset({"S1"})))
    found = contained(again(project), "P1")
    assert set(found.moved) == {("specimen", "S1"), ("assay", "A1"), ("assay", "A2")}
    assert (nodes(found), nodes(contained(project, "P2"))) == (
        [],
        ["after/all", *OWN[:2], "counted/A3", "joined/all", "merged/S1", "merged/S2", "same/all"],
    )


def test_an_id_is_found_whole() -> None:
    pattern = id_pattern({"P1", "S.1"})
    assert pattern.findall("P1 P10 XP1 P1-2 _P1 P1_ (P1) S.1 Sx1 P1/x") == ["P1", "P1", "S.1", "P1"]


def test_steps_of_which_the_name_tells_nobody(project: Project) -> None:
    assert cohort_derived_steps(project.steps) == {"joined", "same", "after"}


def test_another_patient_is_in_their_own_only(project: Project) -> None:
    add(project, [*ROWS, assay("P3", "S3", "A4", sex="F", age="60")])
    make_all(again(project))
    assert set(nodes(contained(project, "P3"))) & {*OWN, "counted/A3", "merged/S2"} == set()
