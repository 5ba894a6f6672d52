"""`ct` for tests: in this process where only its words matter, as a process of its own where that matters."""

import io
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from ctcore.cli import main
from ctcore.project import Project

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Said:
    """What a command did: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


def ct(*arguments: str | Path) -> Said:
    """`ct`, in this process: from the arguments to the exit code. Any error that it lets through fails the test."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["ct", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
    code = ended.value.code
    return Said(code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("CT_PROJECT", "CT_POSTGRES_URL")}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100", **more}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "ctcore.cli", *map(str, arguments)]


def shell(*arguments: str | Path, at: Path | None = None, env: Mapping[str, str] | None = None) -> Said:
    """`ct` as a process of its own."""
    done = subprocess.run(
        command(*arguments),
        cwd=at,
        env=environment(**(env or {})),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return Said(done.returncode, done.stdout, done.stderr)


def contents(root: Path) -> dict[str, list[object]]:
    """Everything in the catalog but what is remembered of files' signatures, and the journal.

    A file changed less than `RACY_NS` ago is read again by whichever command comes later, which then remembers its
    `ctime_ns`: that is the clock, and not the command.
    """
    project = Project(root)
    with project.catalog.read() as connection:
        names = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all()
        kept = sorted(name for name in names if name != "digest_memory")
        found: dict[str, list[object]] = {}
        for name in kept:
            rows = connection.execute(text(f"SELECT * FROM {name}")).mappings()
            found[name] = [tuple(value for key, value in row.items() if key != "ctime_ns") for row in rows]
    return {**found, "journal": [(root / "provenance.jsonl").read_bytes()]}


def quiet_dagster(root: Path) -> Path:
    """Dagster's settings, as `ct init` writes them."""
    (root / "dagster_home").mkdir(exist_ok=True)
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", root / "dagster_home")
    return root


def on_a_terminal(*arguments: str | Path, columns: int = 100) -> tuple[int, str]:
    """`ct` as a process of its own with a terminal: exit code and everything that it shows there."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command(*arguments), stdin=slave, stdout=slave, stderr=slave, env=environment(COLUMNS=str(columns))
    )
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 4096):
            shown += part
    except OSError:  # how a terminal says that it ends
        pass
    os.close(master)
    return process.wait(), shown.decode()
