"""The PostgreSQL server of the tests: it serves, and nothing of it is left."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from ctcore.catalog.engine import Catalog
from tests.helpers.killing import forked
from tests.helpers.postgres import Server, server

CHILD = """
from tests.helpers.postgres import server
with server() as started:
    print(started.pid(), started.folder, flush=True)
    input()
"""


def gone(pid: int, folder: Path) -> bool:
    return not Path(f"/proc/{pid}").exists() and not folder.exists()


def wait_until_gone(pid: int, folder: Path) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not gone(pid, folder):
        time.sleep(0.05)
    return gone(pid, folder)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_server_goes_when_the_tests_are_killed(postgres_url: str, how: signal.Signals) -> None:
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        pid, folder = child.stdout.readline().decode().split()
        assert not gone(int(pid), Path(folder))
        os.kill(child.pid, how)
    assert wait_until_gone(int(pid), Path(folder))


def test_a_machine_without_postgres_skips_and_ci_fails(tmp_path: Path) -> None:
    """A Python of which nothing of PostgreSQL can be found."""
    test = tmp_path / "test_one.py"
    test.write_text("def test_one(postgres_url: str) -> None: ...\n")
    (tmp_path / "conftest.py").write_text(
        textwrap.dedent("""
            import tests.helpers.postgres
            from tests.conftest import *

            tests.helpers.postgres.PLACES = ()
        """)
    )
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--rootdir", tmp_path, test]
    here = str(Path(__file__).parents[2])
    clean = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_XDIST_WORKER")}
    found = {
        ci: subprocess.run(
            command,
            env={
                **clean,
                "PATH": str(tmp_path),
                "PYTHONPATH": here,
                **({"CI": "1"} if ci else {}),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        for ci in (False, True)
    }
    assert found[False].returncode == 0 and "SKIPPED" in found[False].stdout
    assert "no initdb and postgres" in found[False].stdout
    assert found[True].returncode == 1 and "SKIPPED" not in found[True].stdout
    assert "no initdb and postgres" in found[True].stdout


def test_every_test_has_a_database_of_its_own(postgres: Server, postgres_url: str) -> None:
    with postgres.fresh() as other:
        assert other != postgres_url
        postgres.execute("CREATE TABLE mine (n int)", other.rpartition("/")[2])
        found = postgres.execute("SELECT 1 FROM pg_tables WHERE tablename = 'mine'", postgres_url.rpartition("/")[2])
        assert found == []


@pytest.mark.parametrize("how", [Server.crash, Server.stop_at_once])
def test_a_killed_server_starts_again_with_what_was_committed(how: Callable[[Server], None]) -> None:
    with server() as started:
        started.execute("CREATE TABLE kept (n int)")
        before = started.pids()
        assert len(before) > 1
        started.execute("INSERT INTO kept VALUES (1)")
        how(started)
        started.start_again()
        assert not set(before) & set(started.pids())
        assert started.execute("SELECT n FROM kept") == [(1,)]
        folder, last = started.folder, started.pid()
    assert wait_until_gone(last, folder)


def test_one_process_has_one_connection_and_a_fork_its_own(postgres_url: str, tmp_path: Path) -> None:
    def of_postgres() -> int:
        with Catalog(postgres_url, "toy", tmp_path / "journal").open().read() as reading:
            return int(reading.scalar(text("SELECT pg_backend_pid()")) or 0)

    def told() -> int:
        (tmp_path / "told").write_text(str(of_postgres()))
        return 0

    mine = of_postgres()
    assert of_postgres() == mine, "a connection is a process of the server's"
    assert forked(told, tmp_path / "log") == 0
    assert int((tmp_path / "told").read_text()) != mine == of_postgres()
