"""The commit that a step's file lies in."""

import subprocess
from pathlib import Path

import pytest

from ctcore.steps.git_commit import commit_of


def git(folder: Path, *words: str) -> str:
    mine = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", folder, *mine, *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def step(tmp_path: Path) -> Path:
    """A committed step's file in a repository, beside an ignored one."""
    git(tmp_path, "init", "-q")
    (folder := tmp_path / "steps").mkdir()
    (folder / "a.py").write_text("one = 1\n")
    (folder / ".gitignore").write_text("mine.py\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    return folder / "a.py"


def test_a_committed_file_is_of_that_commit(step: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    found = commit_of(step)
    monkeypatch.undo()
    assert found == git(step.parent, "rev-parse", "HEAD").strip()


def test_a_change_beside_it_is_marked_and_bytecode_is_none(step: Path) -> None:
    (step.parent / "__pycache__").mkdir()
    (step.parent / "__pycache__" / "a.pyc").touch()
    assert not (commit_of(step) or "+").endswith("+")
    (step.parent / "b.py").touch()
    assert (commit_of(step) or "").endswith("+")


def test_a_file_that_git_does_not_know_has_no_commit(step: Path, tmp_path: Path) -> None:
    (step.parent / "mine.py").touch()
    assert commit_of(step.parent / "mine.py") is None
    (bare := tmp_path / "new").mkdir()
    git(bare, "init", "-q")
    assert commit_of(bare / "a.py") is None
    assert commit_of(Path("/nowhere/a.py")) is None
