"""Where Dagster keeps its runs and events, and how it treats them."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from ct_instance import dagster_schema
from ctcore.catalog.engine import Catalog
from tests.helpers.shell import quiet_dagster

IDS = ("lung", "lung-dagster", "a" * 52 + "-dagster", "a" * 52, "b" * 59, "b" * 60, "b" * 64)


def test_no_two_projects_or_dagster_share_a_schema(tmp_path: Path) -> None:
    catalogs = [Catalog("postgresql://nobody@localhost/none", one, tmp_path / "p.jsonl").schema for one in IDS]
    schemas = [*catalogs, *map(dagster_schema, catalogs)]
    assert len({name[:63] for name in schemas}) == 2 * len(IDS)
    assert max(map(len, schemas)) <= 63  # PostgreSQL cuts longer names silently


def test_dagster_lets_a_run_wait_for_its_jobs_for_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After that time its monitor calls the run cancelled, which cancels the jobs. By default it is three minutes."""
    monkeypatch.setenv("DAGSTER_HOME", str(quiet_dagster(tmp_path) / "dagster_home"))
    with dg.DagsterInstance.get() as instance:
        assert instance.run_monitoring_cancel_timeout_seconds >= 7 * 24 * 3600


FIRST = """
import os, sys, time
import dagster as dg
from dagster._core.storage.runs.sqlite import sqlite_run_storage as storage

stamp = storage.stamp_alembic_rev
storage.stamp_alembic_rev = lambda *args, **named: (time.sleep(0.5), stamp(*args, **named))
begin, go = os.pipe()
children = []
for _ in range(4):
    if (child := os.fork()) == 0:
        os.close(go)
        os.read(begin, 1)  # all at once: when the last end of the pipe is closed
        with dg.DagsterInstance.get() as instance:
            os._exit(0 if instance.get_runs_count() == 0 else 1)
    children.append(child)
os.close(go)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def test_processes_that_open_a_new_home_at_once_all_open_it(tmp_path: Path) -> None:
    """Dagster makes its tables then, and knows no other process that does so."""
    home = quiet_dagster(tmp_path) / "dagster_home"
    environment = {**os.environ, "DAGSTER_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", FIRST], env=environment, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr.decode()
