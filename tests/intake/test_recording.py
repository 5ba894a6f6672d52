"""Results of an analysis that was made elsewhere: recorded whole or not at all, never overwritten, readable at once."""

import json
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from ctcore.catalog.event_log import check_chain
from ctcore.catalog.tables import event, result
from ctcore.errors import CatalogError, CtError, ProjectError, SheetError, Usage
from ctcore.governance.consent import Statement, set_consent
from ctcore.governance.qc import history, statuses
from ctcore.intake.results import (
    RecordedResults,
    ResultEntry,
    analysis_of,
    blank_columns,
    read_entered,
    record,
    values_of,
)
from ctcore.project import Project
from tests.helpers.kit import TOML, again, fail, make_project
from tests.helpers.shell import ct

ANALYSES = """
[analyses.pathology]
level = "assay"
description = "read by a pathologist"

[analyses.pathology.columns]
ki67 = { type = "real", unit = "%", range = [0, 100], required = true }
grade = { enum = ["G1", "G2", "G3"] }
cells = { type = "integer", range = [0, inf] }
read_on = "date"
margin_free = "boolean"
"""


@pytest.fixture
def project(tmp_path: Path, catalog_url: str) -> Project:
    return make_project(tmp_path / "toy", toml=TOML + ANALYSES)


def enter(project: Project, who: str, run: str = "", reason: str = "", **cells: str) -> RecordedResults:
    analysis = analysis_of(project, "pathology")
    values, problems = values_of(analysis, cells)
    assert problems == []
    return record(project, analysis, [ResultEntry(who, values, blank=blank_columns(cells))], run=run, reason=reason)


def sheet(project: Project, body: str, name: str = "results.csv") -> Path:
    path = project.root / name
    path.write_text(body)
    return path


def from_sheet(project: Project, body: str, reason: str = "") -> RecordedResults:
    analysis = analysis_of(project, "pathology")
    path = sheet(project, body)
    entered = read_entered(analysis, path, project.settings.reading)
    return record(project, analysis, entered, reason=reason, source="sheet results.csv")


def rows(project: Project) -> list[tuple[str, int, dict[str, object], str]]:
    with project.catalog.read() as connection:
        found = connection.execute(select(result).order_by(result.c.id))
        return [(row.run, row.version, json.loads(row.facts), row.reason) for row in found]


def whole(project: Project) -> bool:
    with project.catalog.read() as connection:
        found = [dict(row) for row in connection.execute(select(event).order_by(event.c.seq)).mappings()]
    return check_chain(iter(found)) == []


def test_a_sheet_is_recorded_in_the_types_of_its_columns(project: Project) -> None:
    body = "assay_id,ki67,grade,cells,read_on,margin_free\nA1,30,G2,,2026-01-02,yes\nA3,4.5,,1200,,no\n"
    assert from_sheet(project, body) == RecordedResults([("A1", 1), ("A3", 1)], 0)
    assert [values for _, _, values, _ in rows(project)] == [
        {"ki67": 30.0, "grade": "G2", "read_on": "2026-01-02", "margin_free": True},
        {"ki67": 4.5, "cells": 1200, "margin_free": False},
    ]
    assert whole(project)


def test_a_bad_sheet_lists_all_problems_and_writes_nothing(project: Project) -> None:
    body = "assay_id,ki67,grade,colour\nA1,101,G9,\nA1,,G1,\n,3,,\n"
    with pytest.raises(SheetError) as told:
        from_sheet(project, body)
    assert "unknown column 'colour'" in str(told.value)
    with pytest.raises(SheetError) as told:
        from_sheet(project, body.replace(",colour", "").replace("G9,", "G9").replace("G1,", "G1").replace("3,,", "3,"))
    said = str(told.value)
    for problem in (
        "row 2, column 'ki67': '101' is not within 0 to 100",
        "row 2, column 'grade': 'G9' is not one of G1, G2, G3",
        "row 3, column 'ki67': blank, but required",
        "row 3, A1 is there already, in row 2",
        "row 4, no ID",
    ):
        assert problem in said
    assert rows(project) == []


def test_unknown_or_excluded_entities_refuse_the_whole_record(project: Project) -> None:
    fail(project, "S1")
    set_consent(project, ["P2"], Statement("revoked", form="form 7"))
    with pytest.raises(SheetError) as told:
        from_sheet(project, "assay_id,ki67\nA1,1\nA3,1\nA9,1\n")
    said = str(told.value)
    assert "row 2: assay A1 is excluded: qc_fail" in said and "the control failed" in said
    assert "row 3: assay A3 is excluded: consent revoked on" in said and "(form 7)" in said
    assert "row 4: no assay 'A9' is registered" in said
    assert rows(project) == []


def test_consent_to_some_uses_reaches_an_analysis(tmp_path: Path) -> None:
    uses = '\n[consent]\nuses = ["care", "research"]\nuse = "care"\n[consent.steps]\npathology = "research"\n'
    project = make_project(tmp_path / "toy", toml=TOML + ANALYSES + uses)
    set_consent(project, ["P1"], Statement("limited", uses=("care",), form="form 7"))
    with pytest.raises(Usage, match="consent is limited to care"):
        enter(project, "A1", ki67="1")
    assert enter(project, "A3", ki67="1").written == [("A3", 1)]


def test_a_correction_is_a_version_and_a_repetition_is_none(project: Project) -> None:
    enter(project, "A1", ki67="30")
    assert enter(project, "A1", ki67="30.0") == RecordedResults([], 1)
    with pytest.raises(Usage, match=r"A1 has a pathology already \(ki67 30.0 → 40.0\); say why with --reason"):
        enter(project, "A1", ki67="40")
    assert enter(project, "A1", ki67="40", reason="counted again").written == [("A1", 2)]
    assert rows(project) == [("", 1, {"ki67": 30.0}, ""), ("", 2, {"ki67": 40.0}, "counted again")]
    assert enter(project, "A1", ki67="30", reason="the first count was right").written == [("A1", 3)]


def test_a_correction_keeps_the_unnamed_a_blank_removes(project: Project) -> None:
    enter(project, "A1", ki67="30", grade="G2", qc="warn", qc_reason="pale")
    from_sheet(project, "assay_id,grade\nA1,G3\n", reason="read again")
    assert rows(project)[-1][2] == {"ki67": 30.0, "grade": "G3", "qc": "warn", "qc_reason": "pale"}
    assert [name for name, _, _ in statuses(project)] == ["assay/A1"], "the warning stands"
    assert from_sheet(project, "assay_id,grade\nA1,G3\n") == RecordedResults([], 1)
    with pytest.raises(SheetError, match="row 2: A1 has a pathology already \\(grade G3 → none\\)"):
        from_sheet(project, "assay_id,grade\nA1,\n")
    from_sheet(project, "assay_id,grade,qc,qc_reason\nA1,,,\n", reason="no grade, and stained anew")
    assert rows(project)[-1][2] == {"ki67": 30.0} and statuses(project) == []
    with pytest.raises(SheetError, match="row 2, column 'ki67': blank, but required"):
        from_sheet(project, "assay_id,ki67\nA1,\n", reason="no")
    with pytest.raises(SheetError, match="row 2, column 'ki67': blank, but required"):
        from_sheet(project, "assay_id,grade\nA2,G1\n")
    root = project.root
    assert ct("-C", root, "record", "pathology", "A1", "grade=G1", "--reason", "read again").code == 0
    assert ct("-C", root, "record", "pathology", "A1", "grade=", "--reason", "not G1").code == 0
    assert [facts for _, _, facts, _ in rows(project)[-2:]] == [{"ki67": 30.0, "grade": "G1"}, {"ki67": 30.0}]


def test_runs_stand_beside_each_other(project: Project) -> None:
    enter(project, "A1", ki67="30")
    assert enter(project, "A1", run="second reader", ki67="35").written == [("A1", 1)]
    assert [(run, version) for run, version, _, _ in rows(project)] == [("", 1), ("second reader", 1)]


def test_a_results_qc_excludes_and_a_correction_ends_it(project: Project) -> None:
    enter(project, "A1", ki67="1", qc="fail", qc_reason="wrong block")
    with pytest.raises(Usage, match=r"A1 is excluded: qc_fail .*: wrong block"):
        enter(project, "A1", run="second", ki67="1")
    assert enter(project, "A1", qc="pass", reason="the right block after all").written == [("A1", 2)]
    assert rows(project)[-1][2] == {"ki67": 1.0, "qc": "pass"}, "the reason went with the status that it was for"
    assert enter(project, "A1", run="second", ki67="1").written == [("A1", 1)]
    assert [one["resolved_reason"] for one in history(project, ("assay", "A1"))] == ["corrected"]


def test_a_first_result_without_a_value_is_refused(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", toml=TOML + ANALYSES.replace(", required = true", ""))
    root = project.root
    sheet(project, "assay_id,ki67,grade\nA1,1,G1\nA2,,\n")
    for words, where in ((("A2", "ki67=", "grade="), "A2"), (("results.csv",), "row 3: A2")):
        said = ct("-C", root, "record", "pathology", *(root / w if w.endswith(".csv") else w for w in words))
        assert said.code in (1, 2) and f"{where}: no value of pathology; " in said.err, said
    assert rows(project) == []
    enter(project, "A1", grade="G1")
    assert enter(project, "A1", grade="", reason="of another tube").written == [("A1", 2)], "taken out again"


def test_a_hand_written_row_is_refused_by_the_database(project: Project) -> None:
    enter(project, "A1", ki67="1")
    good = "SELECT {id}, entity, '{analysis}', 'x', 1, '{facts}', '', '', at, actor FROM result WHERE id = 1"
    wrong = [
        ("pathology", '{"ki67":101.0}'),
        ("pathology", '{"ki67":1}'),
        ("pathology", '{"ki67":"1"}'),
        ("pathology", "{}"),
        ("pathology", "[]"),
        ("pathology", '{"ki67":1.0,"grade":"G4"}'),
        ("pathology", '{"ki67":1.0,"cells":-1}'),
        ("pathology", '{"ki67":1.0,"read_on":"2026-02-30"}'),
        ("pathology", '{"ki67":1.0,"colour":"red"}'),
        ("radiology", '{"ki67":1.0}'),
    ]
    statements = [f"INSERT INTO result {good.format(id=2, analysis=one, facts=facts)}" for one, facts in wrong]
    statements.append("UPDATE result SET facts = '{\"ki67\":2.0}'")
    for statement in statements:
        refused = pytest.raises((CatalogError, DBAPIError), match=r"(declares|only added|out of range)")
        with refused, project.catalog.write() as writer:
            writer.execute(text(statement.replace(":", "\\:")))
    right = f"INSERT INTO result {good.format(id=2, analysis='pathology', facts=json.dumps({'ki67': 2.0, 'cells': 3}))}"
    with project.catalog.write() as writer:
        writer.execute(text(right.replace(":", "\\:")))
    assert len(rows(project)) == 2


def test_a_wider_enum_applies_a_contradiction_is_refused(project: Project) -> None:
    enter(project, "A1", ki67="30", grade="G2")
    toml = project.root / "ct.toml"
    before = toml.read_text()
    toml.write_text(before.replace('"G3"]', '"G3", "G4"]') + 'stain = "text"\n')
    wider = again(project)
    assert enter(wider, "A3", ki67="1", grade="G4", stain="HE").written == [("A3", 1)]
    toml.write_text(before.replace('enum = ["G1", "G2", "G3"]', 'type = "integer"'))
    narrower = again(project)
    with pytest.raises(ProjectError, match=r"analyses.pathology.grade: 2 assays have a value .* \(A1, A3\)"):
        enter(narrower, "A2", ki67="1")
    assert len(rows(project)) == 2


def test_schema_tells_of_analyses(project: Project) -> None:
    root = str(project.root)
    assert "ki67" in ct("-C", root, "schema", "show").out
    said = ct("-C", root, "schema", "diff")
    assert said.code == 3 and "analyses.pathology\tlevel\tis new (assay)" in said.out
    assert ct("-C", root, "schema", "check").code == 3
    assert ct("-C", root, "schema", "apply").code == 0
    assert ct("-C", root, "schema", "check").code == 0 and ct("-C", root, "schema", "diff").code == 0


def test_the_command_records_one_and_a_sheet_by_other_names(project: Project) -> None:
    root = str(project.root)
    assert ct("-C", root, "record", "pathology", "A1", "ki67=30", "grade=G2").err == "recorded 1\n"
    assert ct("-C", root, "record", "pathology", "A1", "ki67=30", "grade=G2").err.startswith("recorded 0; 1 there")
    path = str(sheet(project, "Probe\tMIB-1\tnote\nA2\t5\tx\n", "path.tsv"))
    more = ("--map", "Probe=assay_id", "--map", "MIB-1=ki67", "--ignore", "note")
    assert ct("-C", root, "record", "pathology", path, *more).err == "recorded 1\n"
    said = ct("-C", root, "record", "pathology", "A1", "ki67=31", "--reason", "typing error")
    assert said.out == "entity\tversion\nA1\t2\n"
    assert ct("-C", root, "record", "patology", "A1", "ki67=1").code == 2


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('level = "cohort"', "one of patient, specimen, assay"),
        ('level = "assay"\ncolumns = { run = "text" }', "and not"),
        ('level = "assay"\ncolumns = { a = { type = "text", range = [0, 1] } }', "only numbers have one"),
        ('level = "assay"\ncolumns = { a = { type = "real", unique = true } }', "unknown key 'unique'"),
    ],
)
def test_a_wrong_declaration_is_told_with_its_place(tmp_path: Path, toml: str, said: str) -> None:
    with pytest.raises(CtError, match=said):
        _ = make_project(tmp_path / "toy", toml=f"{TOML}\n[analyses.x]\n{toml}\n").settings


def test_an_analysis_has_not_the_name_of_a_step(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", toml=f'{TOML}\n[analyses.counted]\nlevel = "assay"\n')
    with pytest.raises(ProjectError, match="a step or a level has this name"):
        _ = project.steps


def disclosed(project: Project) -> list[str]:
    with project.catalog.read() as connection:
        return list(connection.execute(select(event.c.body).where(event.c.kind == "disclose")).scalars())


def test_results_obey_the_gate_of_their_analysis(tmp_path: Path, catalog_url: str) -> None:
    uses = '\n[consent]\nuses = ["research", "care"]\nuse = "research"\n[consent.steps]\npathology = "care"\n'
    project = make_project(tmp_path / "uses", toml=TOML + ANALYSES + uses)
    for who in ("A1", "A3"):
        enter(project, who, ki67="12.5")
    sql = "SELECT entity FROM results WHERE name = 'ki67'"
    assert ct("-C", project.root, "query", sql).out.split() == ["entity", "A1", "A3"]
    set_consent(project, ["P2"], Statement("limited", ("research",)))
    said = ct("-C", project.root, "query", sql)
    assert said.out.split() == ["entity", "A1"] and "for pathology only: 1 patient" in said.err
    assert "A3" in ct("-C", project.root, "query", "SELECT assay_id FROM assays").out
    assert "12.5" not in ct("-C", project.root, "show", "assay/A3").out
    fail(project, "A1")
    assert "12.5" not in ct("-C", project.root, "show", "assay/A1").out
    before = len(disclosed(project))
    asked = ct("-C", project.root, "show", "assay/A1", "--excluded", "--reason", "audit 7")
    assert "12.5" in asked.out and len(disclosed(project)) == before + 1
    asked = ct("-C", project.root, "query", sql, "--excluded", "--reason", "audit 7")
    assert asked.out.split() == ["entity", "A1", "A3"]


def test_nothing_is_recorded_without_required_consent(tmp_path: Path, catalog_url: str) -> None:
    project = make_project(tmp_path / "required", toml=TOML + ANALYSES + "\n[consent]\nrequired = true\n")
    with pytest.raises(CtError, match="A1 is excluded: consent: none on record"):
        enter(project, "A1", ki67="12.5")
