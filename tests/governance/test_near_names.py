"""Errors for unknown names, with the nearest name that may be shown."""

from pathlib import Path

from ctcore.governance.hints import HINTS, not_found, not_found_texts
from ctcore.project import Project
from tests.helpers.kit import make_project


def test_unknown_names_suggest_near_ones(tmp_path: Path) -> None:
    project: Project = make_project(tmp_path)
    assert "did you mean 'A1'?" in str(not_found(project, "assay", "a11"))
    assert "there is: all" in str(not_found(project, "cohort", "women"))
    many = not_found_texts(project, "assay", [f"A1{n}" for n in range(HINTS + 1)])
    assert "did you mean" in many[0] and many[-1] == f"no assay 'A1{HINTS}' is registered"
