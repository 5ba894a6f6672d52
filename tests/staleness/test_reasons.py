"""A reason's evidence: what differs, in full, so that the same change is known again and another one is not."""

from pathlib import Path

import pytest

from ctcore.cohorts.lookup import find_node
from ctcore.governance.masking import UNMASKED
from ctcore.intake.raw_files import look
from ctcore.intake.register import register
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.integrity.verify import verify
from ctcore.lineage.explain import why
from ctcore.model.masked_text import Words
from ctcore.model.reasons import Reason, private_digest
from ctcore.project import Project
from tests.helpers.kit import ROWS, STEPS, TOML, add, again, assay, make, make_all, make_project, write_sheet

pytestmark = pytest.mark.usefixtures("catalog_url")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = make_project(tmp_path / "toy")
    make_all(made)
    return made


def found(project: Project, node: str) -> dict[str, Reason]:
    """The reasons of a node by kind."""
    return {reason.kind: reason for reason in why(project, find_node(project, node)).verdict.reasons}


def replace_reads(project: Project, text: str) -> None:
    (project.root / "reads/A1.txt").write_text(text)
    look(project)


def rewritten(project: Project, *changes: tuple[str, str]) -> Project:
    text = STEPS
    for old, new in changes:
        text = text.replace(old, new)
    (project.root / "steps/toy.py").write_text(text)
    return again(project)


def test_an_input_is_named_with_both_whole_digests(project: Project) -> None:
    before = found(project, "counted/A1")
    replace_reads(project, "other reads\n")
    reason = found(project, "counted/A1")["input"]
    assert before == {}
    assert (reason.input, reason.node) == ("reads", ("assay", "A1"))
    assert reason.old and reason.new and len(reason.old) == len(reason.new) == 64 and reason.old != reason.new


def test_equal_changes_have_equal_evidence_others_do_not(project: Project) -> None:
    replace_reads(project, "other reads\n")
    first = found(project, "counted/A1")["input"].evidence
    replace_reads(project, "quite other reads\n")
    second = found(project, "counted/A1")["input"].evidence
    replace_reads(project, "other reads\n")
    assert found(project, "counted/A1")["input"].evidence == first != second


def test_evidence_is_not_of_the_words() -> None:
    one = Reason("code", Words("counted a → b"), old="a", new="b")
    assert one.evidence == Reason("code", Words("said otherwise"), old="a", new="b").evidence
    others = [Reason("input", one.words, old="a", new="b"), Reason("code", one.words, old="b", new="a")]
    assert one.evidence not in {other.evidence for other in others}


def test_code_is_named_with_both_whole_digests(project: Project) -> None:
    old = project.recipes["counted"].code
    now = rewritten(project, ("strip()) *", "strip()) * 1 *"))
    reason = found(now, "counted/A1")["code"]
    assert (reason.old, reason.new, reason.node) == (old, now.recipes["counted"].code, None)
    assert reason.evidence == found(now, "counted/A2")["code"].evidence


def test_only_the_parameters_that_differ_are_evidence(project: Project) -> None:
    now = rewritten(project, ("factor: int = 1", "factor: int = 2"))
    reason = found(now, "counted/A1")["parameters"]
    assert (reason.old, reason.new) == ('{"factor":1}', '{"factor":2}')


def test_a_reference_is_named_with_version_and_whole_digest(project: Project) -> None:
    (project.root / "ct.toml").write_text(TOML.replace('version = "1"', 'version = "2"'))
    now = again(project)
    look(now)
    reason = found(now, "counted/A1")["reference"]
    assert reason.old and reason.new and reason.old.startswith("1 ") and reason.new == f"2{reason.old[1:]}"
    assert (reason.input, reason.node) == ("reference:genome", ("reference", "genome"))


def test_members_are_named_with_what_came_and_what_went(project: Project) -> None:
    add(project, [*ROWS, assay("P3", "S3", "A4", sex="F")])
    came = found(project, "joined/all")["member-added"]
    assert (came.input, came.node, came.old, came.new) == ("specimens", ("merged", "S3"), None, None)
    moved = [*ROWS[:1], assay("P1", "S1b", "A2", sex="F", age="40"), ROWS[2]]
    register(project, write_sheet(project.root, moved), AllowedChanges(frozenset(["A2"])))
    went = found(project, "merged/S1")["member-removed"]
    assert (went.node, went.new) == (("counted", "A2"), None) and went.old and len(went.old) == 64


def test_a_value_of_a_person_is_evidence_only_as_a_digest(project: Project) -> None:
    rows = [{**row, "sex": "M"} for row in ROWS]
    register(project, write_sheet(project.root, rows), AllowedChanges(update=frozenset(["patient.sex"])))
    reason = found(project, "merged/S1")["metadata"]
    assert (reason.old, reason.new) == (private_digest('"F"'), private_digest('"M"'))
    assert '"F"' not in repr(reason) and '"M"' not in repr(reason)


def test_a_lost_file_is_named_with_its_problem(project: Project) -> None:
    folder = next((project.store.root / "joined/all").iterdir())
    folder.chmod(0o755)
    (folder / "table.tsv").unlink()
    verify(project)
    reason = found(project, "joined/all")["bytes"]
    assert (reason.input, reason.node) == ("table.tsv", ("joined", "all"))
    assert reason.new and UNMASKED.mask_words(reason.words) == f"table.tsv {reason.new}"


def test_the_root_cause_is_named_with_its_input(project: Project) -> None:
    replace_reads(project, "other reads\n")
    reason = found(project, "joined/all")["upstream"]
    assert (reason.input, reason.node, reason.path) == (
        "specimens",
        ("counted", "A1"),
        (("merged", "S1"), ("counted", "A1")),
    )


def test_why_a_member_went_is_said(project: Project) -> None:
    moved = [*ROWS[:1], assay("P1", "S1b", "A2", sex="F", age="40"), ROWS[2]]
    register(project, write_sheet(project.root, moved), AllowedChanges(frozenset(["A2"])))
    assert said(project, "merged/S1") == ["member-removed: counted/A2 as counts: assay A2 belongs to specimen S1b"]


def test_why_a_member_of_a_cohort_went_is_said(project: Project) -> None:
    (project.root / "ct.toml").write_text(
        TOML.replace("[cohorts.all]", '[cohorts.all]\nwhere = { "patient.sex" = "F" }')
    )
    words = said(again(project), "joined/all")
    changed = "the rule changed: everybody → patient.sex is F"
    why = "the rule of cohort all does not choose it"
    assert words == [f"member-removed: merged/S2 as specimens, {changed}: {why}"]


def test_why_a_member_came_is_said(project: Project) -> None:
    add(project, [*ROWS, assay("P3", "S3", "A4", sex="F")])
    assert said(project, "joined/all") == ["member-added: merged/S3 as specimens: it was never made"]
    make(project, "counted", "A4")
    make(project, "merged", "S3")
    assert said(project, "joined/all") == ["member-added: merged/S3 as specimens: it was made since then"]


def said(project: Project, node: str) -> list[str]:
    """What is said of each member, in the lines that people read."""
    explained = why(project, find_node(project, node))
    assert set(explained.members) <= set(explained.text.splitlines())
    return list(explained.members)
