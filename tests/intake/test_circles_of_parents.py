"""Nobody is among their own ancestors, by several sheets, a table with parents, or one entity."""

from pathlib import Path

import pytest

from ctcore.errors import SheetError
from ctcore.intake.register import register, register_entity
from ctcore.intake.sheet_diff import PARENTS, AllowedChanges
from ctcore.project import Project

TOML = """\
[project]
id = "toy"
[levels.patient.columns]
father = {}
mother = {}
[cohorts.all]
[steps]
folders = ["steps"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "ct.toml").write_text(TOML)
    (tmp_path / "steps").mkdir()
    return Project.find(tmp_path)


def sheet(project: Project, text: str, name: str = "s.csv") -> Path:
    (project.root / name).write_text(text)
    return project.root / name


def refused(project: Project, path: Path, **how: AllowedChanges) -> list[str]:
    with pytest.raises(SheetError) as caught:
        register(project, path, **how)
    return list(caught.value.problems)


CIRCLE = "a circle of parents: 'P2' of 'P1', 'P1' of 'P2'; correct a parent of one of them"


def test_a_circle_over_two_sheets_is_refused(project: Project) -> None:
    register(project, sheet(project, "F P2 P1 0 0 0\n", "one.ped"))
    assert refused(project, sheet(project, "F P1 0 P2 0 0\n", "two.ped")) == [f"row 1: {CIRCLE}"]
    assert refused(project, sheet(project, "patient,mother\nP3,\nP1,P2\n")) == [f"row 3: {CIRCLE}"]
    register(project, sheet(project, "patient,mother\nP1,P3\n"))


def test_a_circle_by_one_entity_is_refused(project: Project) -> None:
    register(project, sheet(project, "patient,father\nP2,P1\nP1,\n"))
    with pytest.raises(SheetError) as caught:
        register_entity(project, "patient", "P1", values={"mother": "P2"})
    assert list(caught.value.problems) == [CIRCLE]
    with pytest.raises(SheetError, match="a circle of parents: 'P3' of 'P3'"):
        register_entity(project, "patient", "P3", values={"father": "P3"})
    assert PARENTS[:2] == ("father", "mother")


def test_a_circle_of_one_sheet_is_told_once(project: Project) -> None:
    (said,) = refused(project, sheet(project, "F P1 P2 0 0 0\nF P2 P1 0 0 0\n", "one.ped"))
    assert said.startswith("row 1: a circle of parents: 'P2' of 'P1', 'P1' of 'P2'")
    assert refused(project, sheet(project, "patient,father\nP1,P2\nP2,P1\n")) == [f"row 2: {CIRCLE}"]
