"""Parts of a rule that find nobody."""

from pathlib import Path

from ctcore.cohorts.rule_checks import rule_warnings
from ctcore.inputs.current import current_inputs
from ctcore.model.cohort_rule import Cohort, Condition
from tests.helpers.kit import TOML, assay, make_project

RULED = '\n[cohorts.a.where]\n"patient.sex" = "F"\n"assay.library" = "R1"\n'  # so that its columns are read


def test_a_rule_that_finds_nobody_says_what_was_meant(tmp_path: Path) -> None:
    where = {"patient.sex": (Condition("is", ("f",)),), "assay.library": (Condition("is", ("R11",)),)}
    cohort = Cohort("a", where, members=("P11",))
    project = make_project(tmp_path, (assay("P1", "S1", "A1", sex="F", library="R1"),), toml=TOML + RULED)
    with project.catalog.read() as connection:
        said = list(rule_warnings(connection, current_inputs(project, connection)[1].hierarchy, cohort))
    assert said == [
        "[cohorts.a] a listed patient is not registered: P11 (did you mean P1?)",
        "[cohorts.a] patient.sex: nobody has f",
        "[cohorts.a] assay.library: nobody has R11 (did you mean R1?)",
    ]
