"""Why members came and went is asked of all of them at once."""

from pathlib import Path

import pytest

from ctcore.governance.consent import Statement, set_consent
from ctcore.lineage.explain import why
from ctcore.project import Project
from ctcore.staleness.membership_changes import membership_sentences
from ctcore.staleness.verdicts import evaluate
from tests.helpers.costs import costs
from tests.helpers.kit import again, assay, fail, make_all, make_project
from tests.helpers.shell import ct

PEOPLE = 12


@pytest.fixture
def project(tmp_path: Path) -> Project:
    rows = [assay(f"P{at}", f"S{at}", f"A{at}", sex="F") for at in range(PEOPLE)]
    made = make_project(tmp_path / "toy", rows)
    make_all(made)
    return made


def statements(project: Project) -> int:
    """Of a new process that is asked why the cohort's result is not fresh."""
    other = again(project)
    return costs(other, lambda: why(other, ("joined", "all"))).statements


def test_why_many_went_takes_as_many_statements_as_why_one(project: Project) -> None:
    set_consent(project, ["P0"], Statement("revoked", form="form 1"))
    fail(project, "S1")
    why(again(project), ("joined", "all"))
    few = statements(project)
    set_consent(project, [f"P{at}" for at in range(2, 6)], Statement("revoked", form="form 1"))
    fail(project, *(f"S{at}" for at in range(6, 9)))
    why(again(project), ("joined", "all"))
    assert statements(project) == few


def test_each_that_went_is_told_its_own_why(project: Project) -> None:
    fail(project, "S1", "A2")
    verdict = next(one for one in evaluate(project).stale() if one.node == ("joined", "all"))
    assert len(membership_sentences(project, verdict)) == 2
    said = ct("-C", project.root, "why", "joined/all").out
    assert "merged/S1 as specimens: specimen S1: qc_fail" in said
    assert "merged/S2 as specimens: assay A2: qc_fail" in said
