"""The database refuses a result that its analysis does not declare, and every change of a result."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from ctcore.catalog.result_triggers import enforce, is_enforced
from ctcore.catalog.tables import entity, result
from ctcore.project import Project
from tests.helpers.kit import TOML, make_project

ANALYSES = """
[analyses.purity]
level = "specimen"
columns.value = { type = "real", range = [0, 1], required = true }
columns.method = {}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("rules") / "toy", toml=TOML + ANALYSES)


@pytest.fixture
def connection(project: Project) -> Iterator[Connection]:
    """A transaction with the rules of the project; it is rolled back."""
    with project.catalog.exclusive() as connection:
        enforce(connection, project.settings.analyses)
        yield connection
        connection.rollback()


def add(connection: Connection, analysis: str, who: str, facts: Any) -> None:
    number = connection.execute(select(func.count()).select_from(result)).scalar_one() + 1
    seq = connection.execute(select(entity.c.seq).where(entity.c.id == who)).scalar_one()
    rest = {one.name: "x" for one in result.columns if not one.nullable and str(one.type) in ("TEXT", "VARCHAR")}
    row = {**rest, "id": number, "version": number, "analysis": analysis, "entity": seq, "facts": json.dumps(facts)}
    connection.execute(insert(result).values(**row))


@pytest.mark.parametrize(
    ("who", "facts"),
    [
        ("S1", {}),
        ("S1", {"method": "a"}),
        ("S1", {"value": 1.5}),
        ("S1", {"value": "0.5"}),
        ("S1", {"value": 0.5, "other": 1}),
        ("S1", [0.5]),
        ("P1", {"value": 0.5}),
    ],
)
def test_a_result_beside_its_declaration_is_refused(connection: Connection, who: str, facts: Any) -> None:
    with pytest.raises(DBAPIError, match=r"a result is not as \[analyses.purity\] declares it; see `ct schema check`"):
        add(connection, "purity", who, facts)


def test_an_undeclared_analysis_is_refused(connection: Connection) -> None:
    with pytest.raises(DBAPIError, match=r"ct\.toml declares no such analysis"):
        add(connection, "other", "S1", {"value": 0.5})


def test_a_result_is_added_and_never_changed(connection: Connection) -> None:
    add(connection, "purity", "S1", {"value": 0.0})
    add(connection, "purity", "S2", {"value": 1.0, "method": "b"})
    with pytest.raises(DBAPIError, match="results are only added"):
        connection.execute(update(result).values(facts='{"value":0.5}'))


def test_rules_of_other_analyses_are_not_those_enforced(connection: Connection, project: Project) -> None:
    assert is_enforced(connection, project.settings.analyses)
    assert not is_enforced(connection, {})
    enforce(connection, {})
    with pytest.raises(DBAPIError, match="no such analysis"):
        add(connection, "purity", "S1", {"value": 0.5})
