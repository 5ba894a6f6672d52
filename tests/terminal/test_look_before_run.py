"""What is looked at before a run, and by which commands."""

import subprocess
import sys
from pathlib import Path

import pytest

from ctcore.errors import ProjectError
from ctcore.terminal.look_before_run import look_before_run
from tests.helpers.kit import TOML, make_project
from tests.helpers.shell import environment


def test_problems_of_files_are_counted_and_the_store_is_made(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    project.store.root.rename(tmp_path / "before")
    assert look_before_run(project) == 0 and project.store.is_there
    (project.root / "reads" / "A2.txt").unlink()
    assert look_before_run(project) == 1


def test_a_strict_sandbox_that_cannot_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "toy", toml=TOML + 'sandbox = "strict"\n')
    monkeypatch.setattr("ctcore.terminal.look_before_run.refusal", lambda: "there is no bwrap here")
    with pytest.raises(ProjectError, match="there is no bwrap here"):
        look_before_run(project)


@pytest.mark.parametrize("command", ["status", "stale", "why", "trace", "show", "path", "heatmap", "export", "query"])
def test_who_only_asks_imports_nothing_that_runs_steps(command: str) -> None:
    asks = f"import sys, ctcore.cli.{command}; print([name for name in sys.modules if 'ctcore.execution' in name])"
    said = subprocess.run(
        [sys.executable, "-c", asks], env=environment(), capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout == "[]\n"
