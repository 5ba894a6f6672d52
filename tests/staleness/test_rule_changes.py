"""A member that came or went because the rule changed says so; one with another cause does not."""

import numpy as np
import pytest

from ctcore.governance.masking import UNMASKED
from ctcore.inputs.current import current_inputs
from ctcore.project import Project
from ctcore.staleness.evaluate import Evaluator
from ctcore.staleness.rule_changes import RuleChange
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import ROWS, TOML, add, again, assay, fail, make_all, make_project

OLD = '[cohorts.all]\nwhere = { "patient.sex" = "F" }\n'
NEW = '[cohorts.all]\nwhere = { "patient.age" = { ">=" = 45 } }\n'
MORE = [assay("P3", "S3", "A4", sex="F", age="60"), assay("P4", "S4", "A5", sex="F", age="60")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Made of P1, P3 and P4, who are F. Then the rule asks for an age: P1 goes and P2 comes. P4 fails QC, P5 is new."""
    toml = TOML.replace("[cohorts.all]\n", OLD)
    project = make_project(tmp_path_factory.mktemp("ruled") / "toy", [*ROWS, *MORE], toml=toml)
    make_all(project)
    place = project.root / "ct.toml"
    place.write_text(place.read_text().replace(OLD, NEW))
    project = again(project)
    add(project, [*ROWS, *MORE, assay("P5", "S5", "A6", sex="F", age="70")])
    fail(project, "S4")
    return project


def test_only_a_member_that_the_rules_tell_apart_names_them(project: Project) -> None:
    reasons = evaluate(project).of("joined", "all").reasons
    found = {
        (one.kind, one.node[1]): UNMASKED.mask_words(one.words)
        for one in reasons
        if one.node and one.kind.startswith("member")
    }
    assert found.keys() == {
        ("member-removed", "S1"),
        ("member-added", "S2"),
        ("member-removed", "S4"),
        ("member-added", "S5"),
    }
    ruled = {key for key, words in found.items() if "age" in words}
    assert ruled == {("member-removed", "S1"), ("member-added", "S2")}, "QC and registration are other causes"


def test_without_another_rule_there_is_nothing_to_say(project: Project) -> None:
    with project.catalog.read() as connection:
        snapshot, inputs = current_inputs(project, connection)
        judge = Evaluator(project, connection, snapshot, inputs)
        joined, merged = project.steps["joined"], project.steps["merged"]
        place = snapshot.locate("joined", ["all"])
        changed = RuleChange.of(judge, joined, np.array(place))
        none = RuleChange.of(judge, merged, np.array(snapshot.locate("merged", ["S1"])))
        want = next(one for one in inputs.wants(joined) if one.what == "step")
    assert changed.rules.keys() == set(place) and not none.rules
    node = ("merged", "S1")
    assert changed.reason_words(want, int(place[0]), "member-removed", node).startswith(", ")
    assert changed.reason_words(want, int(place[0]), "input", node) == "", "only members come and go by a rule"
    assert none.reason_words(want, int(place[0]), "member-removed", node) == ""
    assert changed.reason_words(want, int(place[0]), "member-removed", ("merged", "nobody")) == ""
