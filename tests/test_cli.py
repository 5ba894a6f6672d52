"""The command line as its users meet it: real commands on real projects; exit codes, tables, errors with a way out."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit import make_all, make_project

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Said:
    """What a command did: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("CT_PROJECT", "CT_POSTGRES_URL")}
    return {**kept, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **more}


def ct(*arguments: str | Path, at: Path | None = None, env: Mapping[str, str] | None = None) -> Said:
    """Run the real `ct`. No traceback, whatever is asked of it."""
    command = [sys.executable, "-m", "ctcore.cli", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=at, env={**environment(), **(env or {})}, capture_output=True, text=True, check=False, timeout=300
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Registered, nothing made. Only read."""
    return make_project(tmp_path_factory.mktemp("toy")).root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Registered, everything made. Only read."""
    project = make_project(tmp_path_factory.mktemp("made"))
    make_all(project)
    return project.root


def test_status_ends_with_3_where_something_is_open_and_with_0_where_all_is_fresh(toy: Path, made: Path) -> None:
    assert ct("-C", toy, "status").code == 3
    assert ct("-C", made, "status").code == 0


def test_why_ends_with_3_for_a_node_that_is_not_fresh(toy: Path, made: Path) -> None:
    assert ct("-C", toy, "why", "counted/A1").code == 3
    assert ct("-C", made, "why", "counted/A1").code == 0


def test_path_is_the_folder_of_the_current_artifact_or_one_of_its_files(made: Path) -> None:
    folder = Path(ct("-C", made, "path", "joined").out.strip())
    assert folder.is_absolute() and (folder / "table.tsv").is_file()
    for output in ("table", "table.tsv"):
        assert ct("-C", made, "path", "joined/all", output).out.strip() == str(folder / "table.tsv")
    assert json.loads(ct("-C", made, "path", "joined", "--json").out) == {"node": "joined/all", "path": str(folder)}


def test_path_of_a_node_that_was_never_made_is_one_error_with_the_way_out(toy: Path) -> None:
    said = ct("-C", toy, "path", "joined")
    assert (said.code, said.out) == (1, "")
    assert said.err == "ct: joined/all was never made; `ct run joined/all` makes it\n"


def test_path_of_an_output_that_is_not_there_names_those_that_are(made: Path) -> None:
    said = ct("-C", made, "path", "joined", "tabel")
    assert (said.code, said.out) == (2, "")
    assert "has no output 'tabel'; it has: table (table.tsv)" in said.err


def test_path_of_a_step_with_several_partitions_asks_for_one(made: Path) -> None:
    said = ct("-C", made, "path", "counted")
    assert (said.code, said.out) == (2, "")
    assert "counted has 3 partitions; name one, as in counted/A1" in said.err


def test_the_version_is_said_also_where_ct_is_not_installed() -> None:
    said = ct("--version")
    assert said.code == 0 and said.out.startswith("ct ")
