"""Tables behind the gate: batches, members of cohorts, rules, results."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ctcore.errors import Usage
from ctcore.project import Project
from ctcore.query.batches import NONE, column_of, feeding_of, specimen_batches
from ctcore.query.cohort_members import memberships
from ctcore.query.readable import Gate
from ctcore.query.readiness import artifact_rows, members_left_out, rule_rows, rules
from ctcore.query.result_rows import table_type
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import TOML, again, assay, fail, make_all, make_project

ROWS = (
    assay("P1", "S1", "A1", sex="F", library="R1"),
    assay("P1", "S1", "A2", sex="F", library="R2"),
    assay("P2", "S2", "A3", sex="M", library="R1"),
    assay("P3", "S3", "A4", sex="M"),
)
RULED = '\n[cohorts.a.where]\n"patient.sex" = "F"\n"assay.library" = "R1"\n'


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = make_project(tmp_path_factory.mktemp("toy"), ROWS, toml=TOML + RULED)
    make_all(made)
    fail(made, "A3")
    return again(made)


@pytest.fixture
def gate(project: Project) -> Iterator[Gate]:
    with project.catalog.read() as connection:
        yield Gate.of(project, connection)


def test_batches_hold_usable_assays_and_their_merges(project: Project, gate: Gate) -> None:
    found = feeding_of(gate, "library")
    assert found.by == "library" and found.merges == {"S1": {"R1": 1, "R2": 1}}
    assert [(one.name, one.assays, one.specimens, one.merged) for one in found.batches] == [
        ("R1", ("A1",), ("S1",), ("S1",)),
        ("R2", ("A2",), ("S1",), ("S1",)),
        (NONE, ("A4",), ("S3",), ()),
    ]
    assert specimen_batches(project, "S1") == []  # no column has a usual name


def test_the_column_of_batches_is_named_or_usual(project: Project, tmp_path: Path) -> None:
    assert column_of(project.settings, "library") == "library" == column_of(project.settings, "assay.library")
    with pytest.raises(Usage, match="no such column of assays; declared: library"):
        column_of(project.settings, "lane")
    with pytest.raises(Usage, match="which column tells batches apart"):
        column_of(project.settings, None)
    usual = make_project(tmp_path, toml=TOML.replace("library = {}", "library = {}\nrun = {}"))
    assert column_of(usual.settings, None) == "run"


def test_a_member_that_failed_is_told_of_the_artifact(project: Project, gate: Gate) -> None:
    one, _ = memberships(gate, evaluate(project))
    assert (one.cohort, one.step, one.then, one.now, one.came) == ("all", "joined", 3, 2, ())
    assert (one.went, one.withheld, one.said) == (("S2",), 0, "went: S2")
    assert artifact_rows([one])[0][:3] == ("all", "joined", "specimens")
    said = [str(words) for words in members_left_out(gate, project.steps["joined"], 5)]
    assert said == ["all: 1 of 3 specimens are not among its specimens", "all: …: …: …"]


def test_a_rule_is_shown_with_its_numbers(gate: Gate) -> None:
    found, ruled = rules(gate)
    assert list(found["members"].values()) == [3, 3, 3] and found["doubts"] == []
    assert list(ruled["members"].values()) == [1, 1, 1] and ruled["rule"].startswith("patient.sex is F")
    assert rule_rows([found])[0][0] == "all" and rules(gate, "other") == []


def test_a_large_number_or_a_list_is_held_as_text() -> None:
    given = (("integer", 1), ("integer", "1e99"), ("text", "a"), ("date", "2026-01-01"))
    assert [table_type(kind, value) for kind, value in given] == ["integer", "text", "text", "date"]
