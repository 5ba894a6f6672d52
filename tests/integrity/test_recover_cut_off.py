"""A recovery that is killed is one recovery: whoever comes next ends it."""

from pathlib import Path

import pytest

from ctcore.inputs.current import forget
from ctcore.integrity.recover import recover
from ctcore.project import Project
from tests.helpers.killing import Moments, forked
from tests.helpers.kit import again, make_all, make_project


def recovered(root: Path, notes: Path, at: int | None) -> int:
    """Recover in a process that dies before its so manieth moment."""

    def work() -> int:
        forget()
        Moments(notes, at).watch()
        recover(Project.find(root))
        return 0

    return forked(work, notes.with_name("log"))


def kinds(project: Project) -> list[str]:
    return [row["kind"] for row in again(project).catalog.journal.read()]


@pytest.mark.parametrize("lost", ["catalog", "journal"])
def test_a_recovery_killed_after_its_event_is_one_recovery(tmp_path: Path, catalog_url: str, lost: str) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    journal = project.root / "provenance.jsonl"

    def lose() -> None:
        if lost == "journal" or not project.catalog.is_sqlite:
            journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-3]))
        else:
            for path in project.root.glob("catalog.db*"):
                path.unlink()

    project.catalog.engine.dispose()
    lose()
    assert recovered(project.root, tmp_path / "moments", None) == 0
    names = (tmp_path / "moments").read_text().splitlines()
    last = max(at for at, name in enumerate(names) if name == "commit")
    tried = 0
    for at in range(last + 1, len(names)):
        lose()
        if recovered(project.root, tmp_path / "moments", at) == 0:
            continue  # it was done before that moment
        tried += 1
        assert recovered(project.root, tmp_path / "moments", None) == 0
        assert kinds(project).count("recover") == 1 + tried and kinds(project)[-1] == "recover", at
    assert tried > 1
