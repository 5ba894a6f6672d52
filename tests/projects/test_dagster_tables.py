"""Dagster's tables, read without Dagster."""

import sqlite3
from pathlib import Path

import pytest

from ctcore.projects.dagster_tables import EVENTS, dagster_tables
from tests.helpers.kit import make_project


def test_reading_makes_no_table_and_no_file(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    with pytest.raises(sqlite3.OperationalError), dagster_tables(project, EVENTS) as tables:
        tables.execute("SELECT 1")
    assert not project.dagster_home.exists()
    place = project.dagster_home / EVENTS
    place.parent.mkdir(parents=True)
    with sqlite3.connect(place) as connection:
        connection.execute("CREATE TABLE some (a)")
    with dagster_tables(project, EVENTS) as tables:
        assert list(tables.execute("SELECT a FROM some")) == []
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            tables.execute("INSERT INTO some VALUES (1)")
