"""The database refuses a row that breaks the declared schema, whoever writes it, with words that name the column."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, insert, text, update
from sqlalchemy.exc import DBAPIError

from ctcore.catalog.schema_triggers import applied_schema, enforce, is_enforced, relax
from ctcore.catalog.tables import entity
from ctcore.project import Project
from tests.helpers.kit import TOML, assay, make_project

RULES = """\
[levels.patient.columns]
sex = { enum = ["F", "M"], required = true }
age = "integer"
born = "date"
mrn = { unique = true }
"""
COLUMNS = '[levels.patient.columns]\nsex = { enum = ["F", "M"] }\nage = "integer"\n'


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(
        tmp_path_factory.mktemp("rules") / "toy",
        rows=[assay("P0", "S0", "A0", sex="F")],
        toml=TOML.replace(COLUMNS, RULES),
    )


@pytest.fixture
def connection(project: Project) -> Iterator[Connection]:
    """A transaction with the rules of the project; it is rolled back."""
    with project.catalog.exclusive() as connection:
        enforce(connection, project.settings.levels)
        yield connection
        connection.rollback()


def add(connection: Connection, name: str, **attributes: Any) -> None:
    row = {"seq": sum(map(ord, name)), "level": "patient", "id": name, "parent": None, "purged": None}
    connection.execute(insert(entity).values(**row, attributes=json.dumps(attributes)))


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({}, "patient.sex must be one of F, M, and not blank"),
        ({"sex": "X"}, "patient.sex must be one of F, M"),
        ({"sex": 1}, "patient.sex must be one of F, M"),
        ({"sex": "F", "age": "40"}, "patient.age must be an integer"),
        ({"sex": "F", "age": True}, "patient.age must be an integer"),
        ({"sex": "F", "age": 40.5}, "patient.age must be an integer"),
        ({"sex": "F", "born": "2026-02-30"}, "patient.born must be a date YYYY-MM-DD"),
        ({"sex": "F", "wrong": 1}, "patient: attributes has a key twice, or one that ct.toml does not declare"),
    ],
)
def test_a_wrong_value_is_refused_by_name(connection: Connection, attributes: dict[str, Any], words: str) -> None:
    with pytest.raises(DBAPIError) as error:
        add(connection, "P1", **attributes)
    assert words in str(error.value) and "`ct schema check`" in str(error.value)


def test_right_values_are_taken_and_not_changed_to_wrong_ones(connection: Connection) -> None:
    add(connection, "P1", sex="F", age=0, born="2024-02-29", mrn="a")
    add(connection, "P2", sex="M", age=-1)
    add(connection, "P3", sex="M")
    with pytest.raises(DBAPIError):
        connection.execute(update(entity).where(entity.c.id == "P1").values(attributes='{"sex":"X"}'))


def test_a_unique_value_is_taken_once(connection: Connection) -> None:
    add(connection, "P1", sex="F", mrn="a")
    with pytest.raises(DBAPIError, match="UNIQUE"):
        add(connection, "P2", sex="F", mrn="a")


@pytest.mark.parametrize("name", ["", "-P", "P 1", "P/1", "é", "P" * 65])
def test_an_unsafe_id_is_refused(connection: Connection, name: str) -> None:
    with pytest.raises(DBAPIError):
        add(connection, name, sex="F")


def test_rules_are_enforced_until_they_are_relaxed(connection: Connection, project: Project) -> None:
    levels = project.settings.levels
    assert is_enforced(connection, levels) and applied_schema(connection) == levels
    relax(connection)
    assert not is_enforced(connection, levels)
    add(connection, "P1", sex="X")
    enforce(connection, levels)
    connection.execute(text('DROP TRIGGER "declared_patient_update"'))
    assert not is_enforced(connection, levels), "one rule that is missing is noticed"
