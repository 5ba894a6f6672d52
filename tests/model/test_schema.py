"""The declared schema: refused by the database itself, extended without loss, and never against the data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select, text

from ctcore.catalog.migrations import upgrade
from ctcore.catalog.schema_triggers import applied_schema, is_enforced
from ctcore.catalog.tables import entity, event
from ctcore.cli import cli
from ctcore.errors import CatalogError, CtError, ProjectError, SheetError
from ctcore.intake.register import register
from ctcore.intake.schema_changes import Edits, apply, contradictions, entities
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.model.schema import as_json, from_json
from ctcore.project import Project
from tests.helpers.kit import ROWS, TOML, again, assay, make_project, reasons, write_sheet

COLUMNS = """
[levels.patient.columns]
sex = { enum = ["F", "M", "it's 100 % unknown"], required = true }
age = "integer"
grade = { type = "integer", enum = [1, 2] }
mrn = { unique = true }
born = "date"
weight = "real"
smoker = { type = "boolean", default = false }
"""
RICH = TOML.replace(TOML[TOML.index("[levels.patient") : TOML.index("[levels.specimen")], COLUMNS)


def with_toml(project: Project, toml: str) -> Project:
    (project.root / "ct.toml").write_text(toml)
    return again(project)


def attributes(project: Project, level: str, name: str) -> dict[str, Any]:
    with project.catalog.read() as connection:
        found = select(entity.c.attributes).where(entity.c.level == level, entity.c.id == name)
        return json.loads(connection.execute(found).scalar_one())


def events(project: Project, kind: str) -> list[dict[str, Any]]:
    with project.catalog.read() as connection:
        found = select(event.c.body).where(event.c.kind == kind).order_by(event.c.seq)
        return [json.loads(body) for body in connection.execute(found).scalars()]


def ct(project: Project, *args: str) -> Result:
    return CliRunner().invoke(cli, ["-C", str(project.root), *args])


@pytest.fixture
def rich(tmp_path: Path, catalog_url: str) -> Project:
    """A project with every kind of column, on each database."""
    return make_project(tmp_path / "toy", toml=RICH)


# In the database


def write_by_hand(project: Project, statement: str, values: Mapping[str, Any]) -> None:
    with project.catalog.write() as writer:
        writer.execute(text(statement).bindparams(**values))


INSERT = "INSERT INTO entity (seq, level, id, attributes) VALUES (99, 'patient', :id, :attributes)"
GOOD = [
    {"sex": "M"},
    {"sex": "it's 100 % unknown", "grade": 2, "mrn": "007", "born": "2024-02-29", "weight": 5.0, "smoker": True},
    {"sex": "F", "weight": 1e22, "age": -3},
]
BAD = [
    {},
    {"sex": None},
    {"sex": "X"},
    {"sex": "f"},
    {"sex": "F", "age": "forty"},
    {"sex": "F", "age": 40.0},
    {"sex": "F", "grade": 3},
    {"sex": "F", "grade": "1"},
    {"sex": "F", "born": "2023-02-29"},
    {"sex": "F", "born": "yesterday"},
    {"sex": "F", "weight": 5},
    {"sex": "F", "weight": "5.0"},
    {"sex": "F", "smoker": 1},
    {"sex": "F", "mrn": 7},
    {"sex": "F", "undeclared": "x"},
    ["sex"],
]


def test_the_database_refuses_a_hand_written_bad_row(rich: Project) -> None:
    for bad in BAD:
        with pytest.raises(CatalogError):
            write_by_hand(rich, INSERT, {"id": "P9", "attributes": json.dumps(bad)})
        if bad:
            update = "UPDATE entity SET attributes = :attributes WHERE id = 'P1'"
            with pytest.raises(CatalogError):
                write_by_hand(rich, update, {"attributes": json.dumps(bad)})
    for name in ("", "a b", "../x", "-x", "x" * 65, "x;DROP"):
        with pytest.raises(CatalogError):
            write_by_hand(rich, INSERT, {"id": name, "attributes": '{"sex":"F"}'})
    for good in GOOD:
        write_by_hand(rich, INSERT, {"id": "P9", "attributes": json.dumps(good)})
        write_by_hand(rich, "DELETE FROM entity WHERE seq = :seq", {"seq": 99})


def test_the_database_refuses_a_second_unique_value(rich: Project) -> None:
    put = "UPDATE entity SET attributes = :attributes WHERE id = :id"
    write_by_hand(rich, put, {"id": "P1", "attributes": '{"sex":"F","mrn":"7"}'})
    with pytest.raises(CatalogError, match=r"declared schema does not allow it|UNIQUE"):
        write_by_hand(rich, put, {"id": "P2", "attributes": '{"sex":"F","mrn":"7"}'})
    write_by_hand(rich, put, {"id": "P2", "attributes": '{"sex":"F","mrn":"07"}'})


def test_the_database_says_which_column_and_what_it_must_be(rich: Project) -> None:
    with pytest.raises(CatalogError, match=r"patient.grade must be one of 1, 2; see `ct schema check`"):
        write_by_hand(rich, INSERT, {"id": "P9", "attributes": '{"sex":"F","grade":3}'})


def test_rules_that_somebody_took_out_are_missed_and_put_back(rich: Project) -> None:
    assert ct(rich, "schema", "check").exit_code == 0
    with rich.catalog.write() as writer:
        if rich.dialect == "sqlite":
            writer.execute(text("DROP TRIGGER declared_patient_insert"))
        else:
            writer.execute(text('DROP TRIGGER "declared_insert" ON entity'))
    said = ct(rich, "schema", "check")
    assert said.exit_code == 3
    assert "does not enforce" in said.stderr
    apply(rich)
    assert ct(rich, "schema", "check").exit_code == 0


def test_a_migration_leaves_the_rules_in_place(rich: Project) -> None:
    upgrade(rich.catalog)
    with rich.catalog.read() as connection:
        assert is_enforced(connection, rich.settings.levels)


# At the door


def test_a_default_is_given_to_who_is_new_and_says_nothing(rich: Project) -> None:
    assert attributes(rich, "patient", "P1")["smoker"] is False
    toml = RICH.replace("default = false", "default = true")
    project = with_toml(rich, toml)
    changes = register(project, write_sheet(project.root, [assay("P1", "S1", "A1"), assay("P5", "S5", "A5", sex="F")]))
    assert changes.new["patient"] == ["P5"]
    assert not any(changes.changed.values())
    assert attributes(project, "patient", "P1")["smoker"] is False
    assert attributes(project, "patient", "P5")["smoker"] is True


def sheet_of_mrn(project: Project, *rows: tuple[str, str]) -> Path:
    path = project.root / "mrn.csv"
    path.write_text("patient_id,sex,mrn\n" + "".join(f"{who},,{mrn}\n" for who, mrn in rows))
    return path


def test_a_unique_value_has_one_owner_and_may_be_swapped(rich: Project) -> None:
    register(rich, sheet_of_mrn(rich, ("P1", "1"), ("P2", "2")))
    with pytest.raises(SheetError, match=r"row 3, column mrn: '3' of P2 is that of P1 \(row 2\) already"):
        register(rich, sheet_of_mrn(rich, ("P1", "3"), ("P2", "3")))
    allowed = AllowedChanges(update=frozenset({"patient.mrn"}))
    with pytest.raises(SheetError, match="row 2, column mrn: '2' of P1 is that of patient P2 already"):
        register(rich, sheet_of_mrn(rich, ("P1", "2")), allowed)
    register(rich, sheet_of_mrn(rich, ("P1", "2"), ("P2", "1")), allowed)
    assert (attributes(rich, "patient", "P1")["mrn"], attributes(rich, "patient", "P2")["mrn"]) == ("2", "1")
    with rich.catalog.read() as connection:
        assert is_enforced(connection, rich.settings.levels)


# Over time


def test_an_uncontradicted_schema_applies_with_an_event(rich: Project) -> None:
    toml = RICH.replace('enum = ["F", "M", ', 'enum = ["F", "M", "intersex", ').replace(
        'age = "integer"', 'age = "integer"\nsite = { default = "lung", enum = ["lung"] }'
    )
    project = with_toml(rich, toml)
    assert ct(project, "schema", "diff").exit_code == 3
    changes = register(project, write_sheet(project.root, [assay("P7", "S7", "A7", sex="intersex")]))
    assert changes.schema == ["patient.sex enum +intersex", "patient.site is new (text)"]
    assert events(project, "schema")[-1]["said"] == changes.schema
    assert attributes(project, "patient", "P7") == {"sex": "intersex", "site": "lung", "smoker": False}
    assert "site" not in attributes(project, "patient", "P1")
    assert ct(project, "schema", "diff").exit_code == 0
    assert register(project, project.root / "sheet.csv").schema == []


CONTRADICTED = {
    "required": ('age = "integer"', 'age = { type = "integer", required = true }', "have no value, but it is required"),
    "type": ('age = "integer"', 'age = "date"', "have a value that is not of type date"),
    "enum": ('enum = ["F", "M", ', 'enum = ["F", "other", ', "have a value that is not one of F, other"),
    "gone": ('age = "integer"', "", "have a value of it, but it is not declared"),
    "id_pattern": (
        "[levels.patient.columns]",
        '[levels.patient]\nid_pattern = "P1"\n[levels.patient.columns]',
        "match P1",
    ),
}


@pytest.mark.parametrize("kind", CONTRADICTED)
def test_contradicted_columns_are_refused_with_every_row(tmp_path: Path, kind: str) -> None:
    before, after, said = CONTRADICTED[kind]
    rows = [
        *ROWS,
        *(assay(f"Q{n}", f"SQ{n}", f"AQ{n}", sex="M", age="" if kind == "required" else "7") for n in range(30)),
    ]
    project = make_project(tmp_path / "toy", rows, toml=RICH)
    project = with_toml(project, RICH.replace(before, after))
    with project.catalog.read() as connection:
        old = applied_schema(connection)
    for refused in (lambda: apply(project), lambda: register(project, project.root / "few.csv")):
        (project.root / "few.csv").write_text("patient_id\nP1\n")
        with pytest.raises(ProjectError, match=said) as caught:
            refused()
        assert "`ct schema diff`" in str(caught.value)
        assert "Q17" in str(caught.value)
        assert "Q25" not in str(caught.value)
    with project.catalog.read() as connection:
        assert applied_schema(connection) == old
    shown = ct(project, "schema", "diff")
    assert shown.exit_code == 3
    assert said in shown.stderr


def test_a_sheet_may_fill_a_newly_required_column(rich: Project) -> None:
    project = with_toml(rich, RICH.replace('age = "integer"', 'age = "integer"\nsite = { required = true }'))
    (project.root / "fill.csv").write_text("patient_id,patient.site\nP1,lung\n")
    with pytest.raises(ProjectError, match=r"patient.site: 1 patient has no value, but it is required \(P2\)"):
        register(project, project.root / "fill.csv")
    (project.root / "fill.csv").write_text("patient_id,patient.site\nP1,lung\nP2,liver\n")
    register(project, project.root / "fill.csv")
    assert ct(project, "schema", "check").exit_code == 0


def test_values_change_only_when_named(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", toml=RICH)
    toml = RICH.replace('age = "integer"', 'age = "real"\nsite = { required = true, default = "lung" }')
    project = with_toml(project, toml.replace('smoker = { type = "boolean", default = false }', ""))
    with pytest.raises(ProjectError, match="3 contradictions"):
        apply(project)
    edits = Edits(True, frozenset({"patient.age"}), frozenset({"patient.smoker"}))
    before = attributes(project, "patient", "P1")
    assert apply(project, edits, dry_run=True)[-1] == ("patient", "values of 2 patients changed")
    assert attributes(project, "patient", "P1") == before
    apply(project, edits)
    now = attributes(project, "patient", "P1")
    assert now == {"age": 40.0, "sex": "F", "site": "lung"}
    assert type(now["age"]) is float
    assert events(project, "register")[-1]["before"]["1"] == before
    assert ct(project, "schema", "check").exit_code == 0


def test_text_that_is_no_number_is_not_converted(tmp_path: Path) -> None:
    rows = [assay("P1", "S1", "A1", site="7"), assay("P2", "S2", "A2", site="lung")]
    project = make_project(tmp_path / "toy", rows)
    project = with_toml(project, TOML.replace("site = {}", 'site = "integer"'))
    with pytest.raises(ProjectError, match=r"specimen.site: 1 specimen has a value that is not of type integer \(S2\)"):
        apply(project, Edits(convert=frozenset({"specimen.site"})))
    assert attributes(project, "specimen", "S1") == {"site": "7"}


@pytest.mark.parametrize(
    "edits",
    [Edits(convert=frozenset({"patient.x"})), Edits(drop=frozenset({"patient.sex"})), Edits(drop=frozenset({"x"}))],
)
def test_an_edit_that_names_nothing_is_a_wrong_call(tmp_path: Path, edits: Edits) -> None:
    project = make_project(tmp_path / "toy")
    with pytest.raises(CtError, match=r"no such column|take it out|with its level"):
        apply(project, edits)


def test_a_catalog_without_a_schema_gets_one_keeps_values(rich: Project) -> None:
    with rich.catalog.write() as writer:
        writer.execute(text("DELETE FROM setting WHERE name = 'schema'"))
        from ctcore.catalog.schema_triggers import relax

        relax(writer.connection)
    assert ct(rich, "schema", "check").exit_code == 3
    register(rich, write_sheet(rich.root, ROWS))
    assert ct(rich, "schema", "check").exit_code == 0


def test_a_new_column_makes_nothing_stale(tmp_path: Path) -> None:
    from tests.helpers.kit import make_all

    project = make_project(tmp_path / "toy")
    make_all(project)
    project = with_toml(project, TOML.replace('age = "integer"', 'age = "integer"\nsite = { default = "lung" }'))
    apply(project)
    assert reasons(project) == {}


def test_a_declaration_comes_back_from_the_catalog_as_it_was(rich: Project) -> None:
    levels = rich.settings.levels
    assert as_json(from_json(json.loads(json.dumps(as_json(levels))))) == as_json(levels)


def test_every_value_of_the_catalog_is_judged(rich: Project) -> None:
    with rich.catalog.read() as connection:
        assert contradictions(entities(connection), rich.settings.levels) == []
        found = contradictions(entities(connection), with_toml(rich, TOML).settings.levels)
    assert [(one.column, one.ids) for one in found] == [("smoker", ("P1", "P2"))]
