"""The daemon's questions to SQLite: one engine a file, and transactions as before."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from sqlalchemy import text

from ct_instance.kept_engines import keep_engines
from tests.helpers.shell import quiet_dagster


@pytest.mark.parametrize("is_daemon", [True, False])
def test_the_daemon_keeps_an_engine_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_daemon: bool) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(quiet_dagster(tmp_path) / "dagster_home"))
    if is_daemon:
        monkeypatch.setitem(sys.modules, "dagster._daemon", ModuleType("daemon"))
    else:
        monkeypatch.delitem(sys.modules, "dagster._daemon", raising=False)
    with dg.DagsterInstance.get() as instance:
        for storage in (instance.run_storage, instance.schedule_storage):
            one: Any = storage
            engines = []
            for _ in range(2):
                with one.connect() as connection:
                    engines.append(connection.engine)
            assert (engines[0] is engines[1]) == is_daemon


def test_what_fails_within_a_kept_engine_is_not_written(tmp_path: Path) -> None:
    storage = DagsterSqliteStorage(str(tmp_path))
    keep_engines(storage)
    runs: Any = storage.run_storage
    with pytest.raises(ValueError, match="half"), runs.connect() as connection:
        connection.execute(text("INSERT INTO kvs (key, value) VALUES ('a', 'b')"))
        raise ValueError("half")
    assert runs.get_cursor_values({"a"}) == {}
    runs.set_cursor_values({"a": "c"})
    assert DagsterSqliteStorage(str(tmp_path)).run_storage.get_cursor_values({"a"}) == {"a": "c"}
