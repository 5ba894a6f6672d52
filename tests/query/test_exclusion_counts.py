"""How many nodes of each step are excluded, and by what: in `ct status` and `ct stale --why`, naming nobody."""

import json
from collections import Counter
from pathlib import Path

import pytest

from ctcore.governance.consent import Statement, set_consent
from ctcore.governance.qc import QcEntry
from ctcore.governance.qc import add as add_qc
from ctcore.inputs.current import current_inputs
from ctcore.inputs.exclusions import LACKS, count_excluded
from ctcore.project import Project
from ctcore.query.exclusion_counts import excluded_by_step, excluded_lines
from tests.helpers.kit import ROWS, TOML, again, assay, make_all, make_project
from tests.helpers.shell import ct

CONSENT = """
[consent]
uses = ["research", "care"]
[consent.steps]
counted = "research"
merged = "care"
joined = "care"
"""
MORE = (
    *ROWS,
    *(assay(f"P{n}", f"S{n}", f"A{n + 1}", sex="F", age="60") for n in range(3, 7)),
    {**assay("P7", "S7", "A9", sex="F", age="1"), "reads": ""},
)
COUNTS = {
    "counted": {"qc_fail": 2, "consent revoked": 1, LACKS: 1},
    "merged": {"qc_fail": 2, "consent revoked": 1, "consent limited to other uses": 1, LACKS: 1},
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A specimen and the only assay of another one failed, somebody revoked, somebody is limited, an assay is empty."""
    made = make_project(tmp_path / "toy", MORE, toml=TOML + CONSENT)
    make_all(made)
    add_qc(made, [QcEntry("specimen", "S3", "qc_fail", "bad gel"), QcEntry("assay", "A5", "qc_fail", "no reads")])
    set_consent(made, ["P5"], Statement("revoked", dated="2024-01-20", form="f"))
    set_consent(made, ["P6"], Statement("limited", uses=("research",), dated="2024-01-20", form="f"))
    return again(made)


def test_each_excluded_node_is_counted_once_by_kind(project: Project) -> None:
    assert excluded_by_step(project) == COUNTS
    assert excluded_by_step(project, {"merged": {"S1", "S3"}}) == {"merged": {"qc_fail": 1}}


def test_columns_count_as_one_by_one(project: Project) -> None:
    with project.catalog.read() as connection:
        inputs = current_inputs(project, connection)[1]
        one_by_one = {
            step.name: count_excluded(connection, inputs, step, places)
            for step in project.steps
            if (places := inputs.excluded(step).tolist())
        }
    assert one_by_one == excluded_by_step(project)


def test_steps_with_the_same_counts_are_one_line() -> None:
    few, other = Counter(qc_fail=2, late=3), Counter(late=1)
    assert excluded_lines({"a": few, "b": few, "c": other}) == [
        "excluded from a, b: 3 late, 2 qc_fail",
        "excluded from c: 1 late",
    ]


@pytest.mark.parametrize("command", [("status",), ("stale", "--why")], ids=" ".join)
def test_status_and_stale_say_why_some_are_excluded(project: Project, command: tuple[str, ...]) -> None:
    said = ct("-C", project.root, *command)
    assert f"excluded from counted: 2 qc_fail, 1 consent revoked, 1 {LACKS}" in said.err.splitlines()
    assert "P5" not in said.out + said.err and "A6" not in said.out + said.err


def test_programs_read_the_same_counts(project: Project) -> None:
    assert json.loads(ct("-C", project.root, "stale", "--why", "--json").out)["excluded"] == COUNTS
    levels = json.loads(ct("-C", project.root, "status", "--json").out)
    assert {step: some for one in levels.values() for step, some in one["excluded"].items()} == COUNTS


def test_where_nobody_is_excluded_nothing_is_said(tmp_path: Path) -> None:
    made = make_project(tmp_path / "toy")
    make_all(made)
    assert excluded_by_step(made) == {}
    assert "excluded" not in ct("-C", made.root, "status").err
