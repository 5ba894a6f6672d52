"""Dagster's tables, made and opened with few looks at its migrations, are those that it makes itself."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from dagster._core.storage import sql

from ct_instance.table_revisions import ask_revisions_once

MADE = """
import sys
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from ct_instance.table_revisions import ask_revisions_once
if sys.argv[2] == "once":
    ask_revisions_once()
with DagsterSqliteStorage(sys.argv[1]).event_log_storage.run_connection("one"):
    pass
"""
REOPENED = """
import sys
from alembic.script import ScriptDirectory
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from ct_instance.table_revisions import ask_revisions_once
ask_revisions_once()
ScriptDirectory.from_config = None
DagsterSqliteStorage(sys.argv[1])
"""


def _python(*words: str) -> None:
    subprocess.run([sys.executable, "-c", *words], check=True, timeout=200)


def _tables(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for place in sorted(home.rglob("*.db")):
        with closing(sqlite3.connect(place)) as connection:
            rows = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
            rows += connection.execute("SELECT version_num FROM alembic_version").fetchall()
            mode = connection.execute("PRAGMA journal_mode").fetchone()
        found[place.relative_to(home).as_posix()] = (rows, mode)
    return found


def test_tables_are_those_that_dagster_makes_itself(tmp_path: Path) -> None:
    _python(MADE, str(tmp_path / "stock"), "stock")
    _python(MADE, str(tmp_path / "ours"), "once")
    stock = _tables(tmp_path / "stock")
    assert _tables(tmp_path / "ours") == stock
    assert len(stock) == 4 and all(rows[-1][0] for rows, _ in stock.values())


def test_tables_that_are_there_need_no_look_at_migrations(tmp_path: Path) -> None:
    _python(MADE, str(tmp_path), "stock")
    before = _tables(tmp_path)
    _python(REOPENED, str(tmp_path))
    assert _tables(tmp_path) == before


def test_dagster_has_the_names_that_are_replaced() -> None:
    ask_revisions_once()
    assert hasattr(sql.check_alembic_revision, "asks_once"), "Dagster's internals have other names"


def test_without_the_names_dagster_looks_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    known: Any = sql
    monkeypatch.delattr(known, "ScriptDirectory")
    before = known.check_alembic_revision
    ask_revisions_once()
    assert known.check_alembic_revision is before
