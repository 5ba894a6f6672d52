"""The saved mirror is as new as what a next process would have to read again."""

from pathlib import Path

import pytest

from ctcore.governance.consent import Statement, set_consent
from ctcore.inputs.current import forget
from ctcore.project import Project
from ctcore.snapshot import snapshot
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import again, fail, make_all, make_project


def read_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often a new process reads all entities from the catalog."""
    forget()
    many = []
    with monkeypatch.context() as patch:
        known = snapshot.load_entities
        patch.setattr(snapshot, "load_entities", lambda *given: many.append(given) or known(*given))
        evaluate(again(project))
    return len(many)


def test_people_are_read_again_once_after_a_word_about_them(
    tmp_path: Path, catalog_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    read_again(project, monkeypatch)
    assert read_again(project, monkeypatch) == 0
    set_consent(project, ["P2"], Statement("revoked", form="form 1"))
    assert [read_again(project, monkeypatch) for _ in range(3)] == [1, 0, 0]
    fail(project, "A1")
    assert [read_again(project, monkeypatch) for _ in range(3)] == [1, 0, 0]


def test_people_are_read_again_once_after_a_consent_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No event says so."""
    project = make_project(tmp_path / "toy")
    make_all(project)
    set_consent(project, ["P2"], Statement("full", until="2999-01-01", form="form 1"))
    read_again(project, monkeypatch)
    assert read_again(project, monkeypatch) == 0
    monkeypatch.setattr(snapshot, "today", lambda: "2999-01-01")
    assert [read_again(project, monkeypatch) for _ in range(3)] == [1, 0, 0]
