"""`ct cohort`: who has all that belongs together, and who was a member when things were made."""

import json
from pathlib import Path

import pytest

from ctcore.cohorts.pairings import Readiness, readiness
from ctcore.cohorts.selection import select_nodes
from ctcore.errors import ProjectError, Usage
from ctcore.governance.consent import Statement, set_consent
from ctcore.intake.register import register
from ctcore.project import Project
from tests.helpers.kit import STEPS, TOML, add, again, assay, fail, make_all, make_project
from tests.helpers.shell import ct

PAIRS = """
[pairings.tn]
by = "specimen.site"
order = ["normal", "tumour"]
require = 2
"""


def rows(*specimens: tuple[str, str, str, int]) -> list[dict[str, str]]:
    """(patient, specimen, site, assays)."""
    return [
        assay(patient, specimen, f"{specimen}-{at}", sex="F", age="40", site=site, library="LW"[at % 2])
        for patient, specimen, site, n in specimens
        for at in range(n)
    ]


COHORT = rows(
    ("P1", "N1", "normal", 1),
    ("P1", "T1", "tumour", 2),
    ("P2", "T2", "tumour", 1),
    ("P3", "N3", "normal", 1),
    ("P3", "T3a", "tumour", 1),
    ("P3", "T3b", "tumour", 1),
    ("P4", "X4", "ascites", 1),
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "toy", COHORT, toml=TOML + PAIRS)


def paired(project: Project, several: str = "all", more: str = "") -> Readiness:
    text = TOML + PAIRS + f'several = "{several}"\n{more}'
    (project.root / "ct.toml").write_text(text)
    return readiness(again(project), "tn")


def statuses(found: Readiness) -> dict[str, str]:
    return {row.who: row.status for row in found.rows}


def reason(found: Readiness, who: str) -> str:
    return next(row.reason for row in found.rows if row.who == who)


def test_complete_and_singleton_and_who_has_none(project: Project) -> None:
    found = paired(project)
    assert statuses(found) == {"P1": "complete", "P2": "singleton", "P3": "complete"}
    assert (found.without, found.enough) == (1, 2)
    assert reason(found, "P2") == "no assay of normal" and reason(found, "P1") == ""


def test_three_times_give_each_status_and_two_may_be_enough(tmp_path: Path) -> None:
    toml = TOML + '[pairings.time]\nby = "specimen.site"\nrequire = 2\n'
    some = rows(*((f"P{p}", f"S{p}{t}", f"t{t}", 1) for p, ts in enumerate(("012", "01", "0", "012")) for t in ts))
    project = make_project(tmp_path / "toy", some, toml=toml)
    found = readiness(project, "time")
    assert found.values == ("t0", "t1", "t2")
    assert statuses(found) == {"P0": "complete", "P1": "incomplete", "P2": "singleton", "P3": "complete"}
    assert [row.enough for row in found.rows] == [True, True, False, True]
    assert reason(found, "P1") == "no assay of t2"


def test_a_failed_normal_breaks_the_pair_not_the_tumour(project: Project) -> None:
    fail(project, "N1")
    found = paired(project)
    row = found.rows[0]
    assert (row.status, row.reason, row.passing) == ("broken", "normal: N1 may not be used", 1)
    assert row.cells["tumour"].passes and row.cells["tumour"].usable == ("T1",)


@pytest.mark.parametrize(("several", "status"), (("any", "complete"), ("all", "broken"), ("worst", "broken")))
@pytest.mark.parametrize("failed", ("T3a", "T3b"))
def test_of_two_tumours_neither_hides_the_other(project: Project, several: str, status: str, failed: str) -> None:
    fail(project, failed)
    found = paired(project, several)
    assert statuses(found)["P3"] == status and failed in reason(found, "P3")


@pytest.mark.parametrize(("several", "status"), (("any", "complete"), ("all", "complete"), ("worst", "broken")))
def test_one_of_two_failed_assays_counts_as_the_policy_says(project: Project, several: str, status: str) -> None:
    fail(project, "T1-0")
    assert statuses(paired(project, several))["P1"] == status


def test_assays_that_all_failed_break_a_pair_by_themselves(project: Project) -> None:
    fail(project, "T1-0", "T1-1")
    assert statuses(paired(project))["P1"] == "broken"


def test_a_specimen_without_the_assay_is_incomplete(project: Project) -> None:
    found = paired(project, more='[pairings.tn.where]\n"assay.library" = "W"\n')
    assert statuses(found) == {"P1": "singleton"} and reason(found, "P1") == "no assay of normal"


def test_a_patient_who_may_not_be_used_is_in_no_row(project: Project) -> None:
    fail(project, "P1")
    assert "P1" not in statuses(paired(project))
    said = ct("-C", project.root, "cohort", "--pairing", "tn", "--json")
    assert "P1" not in said.out and "T1" not in said.out and "left out: 1 patient" in said.err
    said = ct("-C", project.root, "cohort", "--pairing", "tn", "--excluded", "--reason", "audit of the board", "--json")
    assert {one["patient"]: one["status"] for one in json.loads(said.out)["rows"]}["P1"] == "broken"


def test_the_complete_ones_are_a_selection(project: Project) -> None:
    fail(project, "T3b", "T1-0")
    again_ = again(project)
    assert select_nodes(again_, ["pairing:tn"]) == {"counted": {"N1-0", "T1-1"}, "merged": {"N1", "T1"}}
    assert select_nodes(again_, ["merged/pairing:tn"]) == {"merged": {"N1", "T1"}}
    with pytest.raises(Usage, match="no pairing 'nt'; declared: tn"):
        select_nodes(again_, ["pairing:nt"])


def test_the_command_shows_rows_and_counts(project: Project) -> None:
    said = ct("-C", project.root, "cohort", "--pairing", "tn", "--singleton-only")
    assert said.out.splitlines() == [
        "patient\tnormal\ttumour\tstatus\treason",
        "P2\t\tT2\tsingleton\tno assay of normal",
    ]
    assert "2 complete, 0 incomplete, 0 broken, 1 singleton; 2 have 2 or more; 1 without any" in said.err
    assert ct("-C", project.root, "cohort", "--complete-only").code == 2
    assert ct("-C", project.root, "cohort", "nobody").code == 2


@pytest.mark.parametrize(
    ("text", "said"),
    (
        ('by = "specimen.sit"', "a column below patient"),
        ('by = "patient.sex"', "a column below patient"),
        ('by = "specimen.site"\nseveral = "some"', "one of any, all, worst"),
        ('by = "specimen.site"\nrequire = -1', "0 or more"),
        ('by = "specimen.site"\nwithin = "assay"', "patient, specimen, or a column"),
        ('by = "specimen.site"\nordre = []', "did you mean 'order'"),
        ('by = "specimen.site"\nwhere = { "assay.lib" = "W" }', "no such level.column"),
    ),
)
def test_a_pairing_that_is_declared_wrongly_is_named(project: Project, text: str, said: str) -> None:
    (project.root / "ct.toml").write_text(f"{TOML}\n[pairings.tn]\n{text}\n")
    with pytest.raises(ProjectError, match=r"pairings\.tn") as raised:
        again(project).settings
    assert said in str(raised.value)


def test_members_today_stand_beside_those_when_it_was_made(project: Project) -> None:
    def difference() -> dict[str, object]:
        return json.loads(ct("-C", project.root, "cohort", "all", "--json").out)["artifacts"][0]

    make_all(project)
    found = difference()
    assert (found["then"], found["now"], found["came"], found["went"]) == (7, 7, [], [])
    add(project, [*COHORT, *rows(("P9", "N9", "normal", 1))])
    found = difference()
    assert (found["then"], found["now"], found["came"], found["state"]) == (7, 8, ["N9"], "stale")
    fail(project, "P1")
    found = difference()
    assert (found["now"], found["went"], found["withheld"]) == (6, [], 2)


def test_an_artifact_of_two_inputs_is_two_rows(tmp_path: Path) -> None:
    two = 'inputs={"specimens": "merged", "same": "merged"}'
    project = make_project(tmp_path / "toy", COHORT, steps=STEPS.replace('inputs={"specimens": "merged"}', two))
    head, *lines = ct("-C", project.root, "cohort").out.rpartition("\n\n")[2].splitlines()
    found = [dict(zip(head.split("\t"), line.split("\t"), strict=True)) for line in lines]
    assert [(row["artifact"], row["input"], row["of"]) for row in found] == [
        ("joined", "specimens", "specimens"),
        ("joined", "same", "specimens"),
    ]


TRIO = TOML.replace('age = "integer"', 'age = "integer"\nfamily = {}\nrole = {}')
FAMILY = '[pairings.trio]\nwithin = "patient.family"\nby = "patient.role"\norder = ["father", "mother", "proband"]\n'


def trio(root: Path) -> Project:
    """F1 is whole, F2 has no mother, P9 has no family."""
    people = (("F1", "father"), ("F1", "mother"), ("F1", "proband"), ("F2", "father"), ("F2", "proband"))
    project = make_project(root, [assay("P9", "P9-B", "P9-L")], toml=TRIO + FAMILY)
    lines = [f"{f}-{r},{f},{r},{f}-{r}-B,{f}-{r}-L" for f, r in people]
    path = root / "people.csv"
    path.write_text("patient_id,family,role,specimen_id,assay_id\n" + "\n".join(lines) + "\n")
    register(project, path)
    return project


def test_a_trio_is_complete_by_family(tmp_path: Path) -> None:
    found = readiness(trio(tmp_path / "toy"), "trio")
    assert statuses(found) == {"F1": "complete", "F2": "incomplete"} and found.without == 1
    assert reason(found, "F2") == "no assay of mother"


def test_a_family_with_a_parent_who_may_not_be_used_is_broken(tmp_path: Path) -> None:
    project = trio(tmp_path / "toy")
    fail(project, "F1-father")
    found = readiness(again(project), "trio")
    assert statuses(found)["F1"] == "broken" and reason(found, "F1") == "father: F1-father may not be used"


def test_a_parent_without_consent_is_not_named(tmp_path: Path) -> None:
    project = trio(tmp_path / "toy")
    set_consent(project, ["F1-father"], Statement("revoked", dated="2024-01-20", form="withdrawal form 12"))
    found = readiness(again(project), "trio")
    assert statuses(found)["F1"] == "broken" and reason(found, "F1") == "father: somebody may not be used"
    assert "F1-father" in reason(readiness(again(project), "trio", everybody=True), "F1")


def test_a_complete_family_is_a_selection(tmp_path: Path) -> None:
    project = trio(tmp_path / "toy")
    (project.root / "steps" / "toy.py").write_text(
        STEPS.replace('files=["reads"], ', "").replace('call.file("reads").read_text()', '""')
    )
    assert select_nodes(again(project), ["merged/pairing:trio"]) == {
        "merged": {"F1-father-B", "F1-mother-B", "F1-proband-B"}
    }


def test_families_are_of_patients(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"within = 'specimen.site': patient, specimen, or a column"):
        make_project(tmp_path / "toy", toml=TRIO + FAMILY.replace("patient.family", "specimen.site"))
