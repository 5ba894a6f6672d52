"""A reason holds the evidence of its difference: digests and versions of then and now, and no personal value."""

import json

import numpy as np
import pytest

from ctcore.inputs.current import current_inputs
from ctcore.intake.raw_files import look
from ctcore.intake.register import register
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.model.reasons import Reason, private_digest
from ctcore.project import Project
from ctcore.staleness.direct_reasons import direct_reasons
from ctcore.staleness.evaluate import Evaluator
from tests.helpers.kit import ROWS, Inline, again, change, make, make_project, write_sheet


def reasons_of(project: Project, step: str, partition: str) -> list[Reason]:
    with project.catalog.read() as connection:
        snapshot, inputs = current_inputs(project, connection)
        judge = Evaluator(project, connection, snapshot, inputs)
        place = int(snapshot.locate(step, [partition])[0])
        return direct_reasons(judge, project.steps[step], np.array([place]))[place]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """All made but joined. Since then: other bytes of A1, another sex of P2, and a factor of 3."""
    project = make_project(tmp_path_factory.mktemp("told") / "toy")
    for step in ("counted", "merged"):
        make(project, step, runner=Inline(project))
    change(project.root / "reads/A1.txt")
    look(project)
    rows = [{**row, "sex": "F"} for row in ROWS]
    register(project, write_sheet(project.root, rows), allowed=AllowedChanges(update=frozenset({"patient.sex"})))
    place = project.root / "ct.toml"
    place.write_text(place.read_text() + "\n[params.counted]\nfactor = 3\n")
    return again(project)


def test_a_node_that_was_never_made_says_only_that(project: Project) -> None:
    (only,) = reasons_of(project, "joined", "all")
    assert (only.kind, str(only.words)) == ("missing", "never made")


def test_an_unchanged_node_has_no_direct_reason(project: Project) -> None:
    assert reasons_of(project, "merged", "S1") == []


def test_parameters_are_told_by_the_members_that_differ(project: Project) -> None:
    (only,) = reasons_of(project, "counted", "A2")
    assert only.kind == "parameters" and only.node is None
    assert json.loads(only.old or "") == {"factor": 1} and json.loads(only.new or "") == {"factor": 3}


def test_an_input_is_told_by_its_versions_then_and_now(project: Project) -> None:
    kinds = {one.kind: one for one in reasons_of(project, "counted", "A1")}
    assert kinds.keys() == {"parameters", "input"}
    one = kinds["input"]
    assert one.node == ("assay", "A1") and one.input == "reads"
    assert one.old and one.new and one.old != one.new


def test_a_personal_value_is_only_in_a_digest(project: Project) -> None:
    (only,) = reasons_of(project, "merged", "S2")
    assert (only.kind, only.input, only.node) == ("metadata", "patient.sex", ("specimen", "S2"))
    assert only.old == private_digest('"M"') and only.new != only.old
    assert "M" not in repr(only.words)
    assert len(only.old or "") == len(only.new or "") == 64
