"""The parts of ct.toml by themselves: what may run by itself, rules, QC and consent; edits; the user's projects."""

from pathlib import Path

import pytest

from ctcore.config import address_book, edit
from ctcore.config.automation import read_automation, unknown_steps
from ctcore.config.cohort_rules import nearest_hint, read_cohorts, value_of
from ctcore.config.qc_and_consent import qc_problem, read_kinds, read_uses
from ctcore.config.templates import copy_example, example_folder
from ctcore.errors import ProjectError, Usage
from ctcore.model.cohort_rule import Cohort
from ctcore.model.column import Column
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.schema import Levels, LevelSchema

LEVELS: Levels = {
    **{level: LevelSchema(level) for level in ENTITY_LEVELS},
    "patient": LevelSchema("patient", {"age": Column("age", "integer"), "sex": Column("sex", enum=("F", "M"))}),
}


def test_a_policy_is_the_steps_own_or_the_default() -> None:
    found, problems = read_automation({}, {"default": "ask", "merged": "never"})
    assert problems == []
    assert [found.policy(step) for step in ("merged", "joined")] == ["never", "ask"]
    assert read_automation({}, {})[0].policy("merged") == "automatic"
    assert list(unknown_steps(found, ["merge"])) == ["[policy] merged: no such step; did you mean 'merge'?"]


@pytest.mark.parametrize("budget", [{"partitions": 0}, {"partitions": True}, {"core_hours": 0}, {"hours": 3}, 5])
def test_a_budget_that_bounds_nothing_is_refused(budget: object) -> None:
    found, problems = read_automation({"budget": budget, "pause": True}, {})
    assert len(problems) == 1 and not found.pause


def test_a_budget_is_read(tmp_path: Path) -> None:
    found, problems = read_automation({"budget": {"partitions": 10, "core_hours": 0.5}}, {})
    assert (found.partitions, found.core_hours, problems) == (10, 0.5, [])


def rules(document: dict[str, object], root: Path) -> tuple[dict[str, Cohort], list[str]]:
    return read_cohorts(document, LEVELS, ["trio"], root)


def test_cohorts_are_made_from_each_other_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("P1 # first\n\n# nobody\nP2\nP1\n")
    found, problems = rules(
        {"both": {"all_of": ["adults"], "none_of": ["listed"]}, "adults": {"where": {"patient.age": {">=": 18}}}}
        | {"listed": {"members_file": "ids.txt"}},
        tmp_path,
    )
    assert problems == []
    assert found["both"].all_of == (found["adults"],) and found["listed"].members == ("P1", "P2")
    assert rules({}, tmp_path)[0] == {"all": Cohort("all")}


@pytest.mark.parametrize(
    ("cohort", "said"),
    [
        ({"any_of": ["a"]}, "a cohort is made from itself: a → a"),
        ({"where": {"patient.sex": {">": "F"}}}, "a text is not compared by size"),
        ({"where": {"patient.age": {">": 2**53 + 1}}}, "numbers are compared up to"),
        ({"where": {"patient.sex": []}}, "the list of values is empty"),
        ({"where": {"patient.sex": "f"}}, "is not one of F, M"),
        ({"pairing": "duo"}, "no such pairing; known: trio"),
        ({"members": ["../x"]}, "is no ID"),
    ],
)
def test_a_rule_that_cannot_be_meant_says_why(tmp_path: Path, cohort: dict[str, object], said: str) -> None:
    problems = rules({"a": cohort}, tmp_path)[1]
    assert len(problems) == 1 and said in problems[0]


def test_a_value_is_written_as_the_catalog_has_it() -> None:
    problems: list[str] = []
    assert value_of("x", 5, Column("c", "real"), problems) == "5.0"
    assert value_of("x", True, Column("c", "boolean"), problems) == "true"
    assert problems == []
    value_of("x", {}, Column("c"), problems)
    assert problems == ["x = {}: one value is expected"]
    assert nearest_hint("sux", ["sex"]) == "did you mean 'sex'?" and nearest_hint("q", []) == "known: none"


def test_kinds_of_qc_add_to_those_that_are_built_in() -> None:
    found, problems = read_kinds({"dark": {"levels": ["assay"], "status": "warn"}, "bad": {"status": "pass"}})
    assert found["dark"].status == "warn" and "contamination" in found and "bad" not in found
    assert len(problems) == 1 and "[qc.kinds.bad] status = 'pass'" in problems[0]


@pytest.mark.parametrize(
    ("facts", "level", "said"),
    [
        ({}, "assay", None),
        ({"qc": "pass"}, "assay", None),
        ({"qc": "fail", "qc_reason": "dark"}, "assay", None),
        ({"qc": "fail"}, "assay", "without a reason"),
        ({"qc": "fail", "qc_reason": "two\nlines"}, "assay", "without a reason"),
        ({"qc": "good"}, "assay", "it is one of pass"),
        ({"qc": "pass"}, "cohort", "a cohort has none"),
        ({"qc_reason": "dark"}, "assay", "qc_reason without qc"),
    ],
)
def test_what_a_step_says_of_quality_is_checked(facts: dict[str, object], level: str, said: str | None) -> None:
    found = qc_problem(facts, level)  # type: ignore[arg-type]
    assert found is None if said is None else found is not None and said in found


def test_an_unlisted_use_is_refused_and_allows_nothing() -> None:
    good, problems = read_uses({"uses": ["research"], "use": "research", "steps": {"a": "research"}, "required": True})
    assert problems == [] and good.of("b") == "research" and good.required
    bad, problems = read_uses({"uses": ["research"], "steps": {"a": "sale"}})
    assert bad.known == () and problems == ["[consent.steps] a = 'sale' is not among the uses: 'research'"]


TOML = '# mine\n[references.genome]  # the one\npath = "a.fa"\nversion = "1" # old\n\n# next\n[run]\nworkers = 2\n'


def test_an_edit_changes_its_value_and_no_other_byte() -> None:
    assert edit.change_table(TOML, ("references", "genome"), {"version": "2"}) == TOML.replace('"1"', '"2"')
    crlf = TOML.replace("\n", "\r\n")
    assert edit.change_table(crlf, ("references", "genome"), {"version": "2"}) == crlf.replace('"1"', '"2"')


def test_a_new_table_stands_behind_its_kind() -> None:
    new = edit.add_table(TOML, ("references", "db snp"), {"path": 'q"uote'})
    assert new == TOML.replace('"1" # old\n', '"1" # old\n\n[references."db snp"]\npath = "q\\"uote"\n')
    with pytest.raises(ProjectError, match="is there already"):
        edit.add_table(TOML, ("references", "genome"), {})


def test_a_byte_order_mark_is_read_and_kept(tmp_path: Path) -> None:
    """Editors on Windows write one; tomllib reads none."""
    (place := tmp_path / "ct.toml").write_bytes("b".encode("utf-8-sig"))
    assert edit.read_whole(place) == ("b", "utf-8-sig")


def test_projects_are_found_by_id_and_a_moved_one_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(address_book.VARIABLE, str(tmp_path / "book" / "projects.json"))
    assert address_book.known_projects() == {}
    (folder := tmp_path / "lung").mkdir()
    (folder / "ct.toml").write_text('[project]\nid = "lung"\n')
    with address_book.changing_projects() as listed:
        listed["lung"] = folder
    assert address_book.folder_of("lung") == folder
    with pytest.raises(Usage, match="no project 'lungs'; known: lung"):
        address_book.folder_of("lungs")
    (folder / "ct.toml").write_text('[project]\nid = "liver"\n')
    with pytest.raises(ProjectError, match="is the project liver now"):
        address_book.folder_of("lung")
    address_book.address_book_file().write_text("[]")
    with pytest.raises(ProjectError, match="is no list of projects"):
        address_book.known_projects()


def test_an_example_that_is_none_names_those_there_are(tmp_path: Path) -> None:
    assert "{id}" in copy_example("three_people", tmp_path) and (tmp_path / "samplesheet.csv").is_file()
    for name in ("two_people", "../three_people"):
        with pytest.raises(Usage, match="there is: three_people"):
            example_folder(name)
