"""`ct stale`, `ct accept` and `ct why` as their users meet them: tables, JSON, exit codes, and what is typed wrong."""

import json
from pathlib import Path

import pytest

from ctcore.intake.register import register
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.staleness.summary import EACH_UP_TO
from tests.helpers.kit import ROWS, STEPS, add, assay, make, make_all, make_project, write_sheet
from tests.helpers.shell import Said, contents, ct, on_a_terminal


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Everything made; then other code for one step, so that three nodes differ and three wait."""
    project = make_project(tmp_path / "toy")
    make_all(project)
    rewrite(project.root, "strip()) * 1 *")
    return project.root


def rewrite(root: Path, text: str) -> None:
    (root / "steps/toy.py").write_text(STEPS.replace("strip()) *", text))


def rows(said: Said) -> list[list[str]]:
    return [line.split("\t") for line in said.out.splitlines()]


def test_what_has_changed_is_told_from_what_is_about_to(root: Path) -> None:
    said = ct("-C", root, "stale")
    assert said.code == 3
    assert rows(said) == [
        ["step", "level", "nodes", "fresh", "accepted", "never made", "changed", "about to change", "states"],
        ["counted", "assay", "3", "0", "0", "0", "3", "0", "3 stale"],
        ["merged", "specimen", "2", "0", "0", "0", "0", "2", "2 stale"],
        ["joined", "cohort", "1", "0", "0", "0", "0", "1", "1 stale"],
    ]


def test_stale_ends_with_0_where_all_is_fresh_or_accepted(root: Path) -> None:
    assert ct("-C", root, "accept", "--select", "counted", "--reason", "layout").code == 0
    said = ct("-C", root, "stale", "--why")
    assert said.code == 0 and "code:" not in said.out
    assert rows(said)[1][:8] == ["counted", "assay", "3", "3", "3", "0", "0", "0"]
    rewrite(root, "strip()) *")
    assert rows(ct("-C", root, "stale"))[1][:8] == ["counted", "assay", "3", "3", "0", "0", "0", "0"]


def test_a_selection_is_all_that_is_looked_at(root: Path) -> None:
    said = ct("-C", root, "stale", "--why", "--select", "merged/S1")
    assert [row[0] for row in rows(said)] == ["step", "merged", "", "node", "merged/S1"]
    assert ct("-C", root, "stale", "--select", "nowhere").code == 2


def test_json_has_the_whole_evidence(root: Path) -> None:
    found = json.loads(ct("-C", root, "stale", "--why", "--json").out)
    assert [(one["step"], one["changed"], one["about_to_change"]) for one in found["steps"]] == [
        ("counted", 3, 0),
        ("merged", 0, 2),
        ("joined", 0, 1),
    ]
    reason = found["nodes"][0]["reasons"][0]
    assert reason["kind"] == "code" and len(reason["old"]) == len(reason["new"]) == len(reason["evidence"]) == 64
    assert found["nodes"][-1]["reasons"][0]["path"] == ["merged/S1", "counted/A1"]


def test_many_nodes_are_grouped_by_what_they_have_in_common(tmp_path: Path) -> None:
    many = [assay("P1", f"S{at % 3}", f"A{at:03}", sex="F") for at in range(EACH_UP_TO + 1)]
    root = make_project(tmp_path / "many", many).root
    said = ct("-C", root, "stale", "--why")
    shown = rows(said)[-6:]
    assert shown[1] == ["counted", "41", "missing: never made"]
    assert [row[:2] for row in shown[2:]] == [["merged", "3"], ["merged", "3"], ["joined", "1"], ["joined", "1"]]
    assert "--json names each" in said.err


def test_the_root_cause_and_the_way_to_it_are_said(root: Path) -> None:
    lines = ct("-C", root, "why", "joined").out.splitlines()
    words = json.loads(ct("-C", root, "why", "counted/A1", "--json").out)["reasons"][0]["words"]
    assert lines[1:] == [f"root cause: counted/A1: code: {words}", "path: joined/all ← merged/S1 ← counted/A1"]


def test_an_accepted_cell_has_a_mark(root: Path) -> None:
    ct("-C", root, "accept", "counted/A2", "--reason", "layout")
    said = ct("-C", root, "status")
    assert ["S1", "A2", "fresh*"] in rows(said) and "accepted" in said.err
    assert json.loads(ct("-C", root, "status", "--json").out)["assay"]["accepted"] == {"counted": ["A2"]}
    assert "was accepted by" in ct("-C", root, "show", "counted/A2").out


def test_what_is_accepted_is_shown_and_a_dry_run_writes_nothing(root: Path) -> None:
    before = contents(root)
    dry = ct("-C", root, "accept", "--select", "counted,merged", "--dry-run")
    assert dry.code == 0 and contents(root) == before
    assert rows(dry)[1][:2] == ["counted", "3"] and rows(dry)[1][2].startswith("code: counted ")
    assert "3 nodes; nothing was written" in dry.err and "still not fresh: 2 upstream" in dry.err
    wet = ct("-C", root, "accept", "--select", "counted,merged", "--reason", "layout")
    assert wet.out == dry.out and "accepted for 3 nodes by" in wet.err


def test_undoing_is_shown_and_a_dry_run_of_it_writes_nothing(root: Path) -> None:
    ct("-C", root, "accept", "--select", "counted", "--reason", "layout")
    before = contents(root)
    dry = ct("-C", root, "accept", "--undo", "--select", "counted", "--dry-run")
    assert dry.code == 0 and contents(root) == before
    wet = ct("-C", root, "accept", "--undo", "--select", "counted", "--reason", "it was more")
    assert wet.out == dry.out and rows(wet)[1][:2] == ["counted", "3"]
    assert ct("-C", root, "stale").code == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["counted/A1"], "say why"),
        (["counted/A1", "--reason", "  "], "say why"),
        (["counted/A1", "--reason", "two\nlines"], "one line"),
        (["counted/A1", "--reason", "half \udc80"], "one line"),
        (["--reason", "x"], "which nodes?"),
        (["counted/A9", "--reason", "x"], "no assay 'A9' is registered"),
        (["cuonted/A1", "--reason", "x"], "counted"),
        (["counted", "--reason", "x"], "has 3 partitions; name one"),
        (["assay/A1", "--reason", "x"], "'assay'"),
        (["joined", "--reason", "x"], "at the root cause, or make that again (counted/A1)"),
        (["counted/A1", "--only", "cod", "--reason", "x"], "no kind 'cod'; these can be accepted: code"),
        (["counted/A1", "--only", "bytes", "--reason", "x"], "'bytes' cannot be accepted"),
        (["counted/A1", "--only", "reference", "--reason", "x"], "counted/A1 is not fresh by code"),
        (["--undo", "counted/A1", "--reason", "x"], "nothing to undo: nothing is accepted of counted/A1"),
        (["--undo", "counted/A1"], "say why"),
    ],
)
def test_what_is_typed_wrong_is_said_and_changes_nothing(root: Path, arguments: list[str], said: str) -> None:
    before = contents(root)
    found = ct("-C", root, "accept", *arguments)
    assert found.code == 2 and said in found.err and found.out == ""
    assert contents(root) == before


def test_a_fresh_node_has_nothing_to_accept(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    said = ct("-C", project.root, "accept", "counted/A1", "--reason", "x")
    assert said.code == 2 and "nothing to accept: counted/A1 is fresh" in said.err


@pytest.fixture
def other_sex(tmp_path: Path) -> Path:
    """Everything made; then a person's value replaced."""
    project = make_project(tmp_path / "toy")
    make_all(project)
    replaced = [{**row, "sex": "M"} for row in ROWS]
    register(project, write_sheet(project.root, replaced), AllowedChanges(update=frozenset(["patient.sex"])))
    return project.root


def test_a_persons_values_are_shown_on_a_terminal_only(other_sex: Path) -> None:
    piped = ct("-C", other_sex, "why", "merged/S1", "--values")
    assert piped.code == 2 and "only on a terminal" in piped.err
    code, shown = on_a_terminal("-C", other_sex, "why", "merged/S1", "--values")
    assert code == 3
    assert 'patient.sex of S1: "F" → "M"' in shown


def test_no_value_of_a_person_is_in_what_is_piped_or_written(other_sex: Path) -> None:
    said = [ct("-C", other_sex, *what).out for what in (("stale", "--why", "--json"), ("why", "merged/S1", "--json"))]
    ct("-C", other_sex, "accept", "merged/S1", "--reason", "a typing error")
    journal = (other_sex / "provenance.jsonl").read_text().splitlines()
    said += [line for line in journal if '"kind":"accept' in line]
    assert len(said) == 3
    for text in said:
        assert "patient.sex" in text
        assert '"M"' not in text and '"F"' not in text and '\\"M' not in text


def test_a_new_member_can_be_accepted_once_it_is_made(tmp_path: Path) -> None:
    """Before, nobody knows what would be accepted."""
    project = make_project(tmp_path / "toy")
    make_all(project)
    add(project, [*ROWS, assay("P3", "S3", "A4", sex="F")])
    early = ct("-C", project.root, "accept", "joined", "--reason", "the table is frozen")
    assert early.code == 2 and "member-added: merged/S3 as specimens: it is not made yet" in early.err
    make(project, "counted", "A4")
    make(project, "merged", "S3")
    assert ct("-C", project.root, "accept", "joined", "--reason", "the table is frozen").code == 0
    assert ct("-C", project.root, "stale").code == 0


def test_what_stands_is_listed_with_names_and_reasons(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CT_ACTOR", "grace")
    ct("-C", root, "accept", "--select", "counted", "--reason", "layout")
    ct("-C", root, "accept", "--undo", "counted/A1", "--reason", "not that one")
    said = rows(ct("-C", root, "accept", "--list"))
    assert said[0] == ["day", "by", "step", "nodes", "first", "accepted", "reason"]
    assert [row[1:5] for row in said[1:]] == [["grace", "counted", "2", "A2"]]
    assert said[1][5].startswith("code: counted ") and said[1][6] == "layout"
    (listed,) = json.loads(ct("-C", root, "accept", "--list", "--json").out)
    assert (listed["actor"], listed["nodes"], listed["kind"]) == ("grace", 2, "code")
