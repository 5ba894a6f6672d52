"""A file that somebody has, outside of any project: of which known project it is, and how it was made there."""

import json
import shutil
from pathlib import Path

import pytest

from ctcore.cohorts.lookup import find_node
from ctcore.governance.consent import Statement, set_consent
from ctcore.lineage.elsewhere import owners_of
from ctcore.lineage.explain import artifact_path
from ctcore.project import Project
from ctcore.projects.listing import add
from tests.helpers.kit import TOML, make_all, make_project
from tests.helpers.shell import ct


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in no project, with the list of projects in it."""
    monkeypatch.setenv("CT_PROJECTS", str(tmp_path / "projects.json"))
    monkeypatch.delenv("CT_PROJECT", raising=False)
    folder = tmp_path / "outside"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def _known(root: Path, project_id: str) -> Project:
    project = make_project(root, toml=TOML.replace('"toy"', f'"{project_id}"'))
    make_all(project)
    add(project)
    return project


def _copy(project: Project, node: str, output: str, to: Path) -> Path:
    return Path(shutil.copy(artifact_path(project, find_node(project, node), output).path, to))


def test_a_file_is_found_in_the_project_that_made_it(outside: Path, tmp_path: Path) -> None:
    lung = _known(tmp_path / "lung", "lung")
    other = make_project(tmp_path / "liver", toml=TOML.replace('"toy"', '"liver"'))
    add(other)
    file = _copy(lung, "joined/all", "table", outside / "some.tsv")
    said = ct("trace", file)
    assert said.code == 0 and f"{file} is of project lung ({lung.root})" in said.err.splitlines()
    assert said.out == ct("-C", lung.root, "trace", file).out and "joined/all" in said.out
    assert json.loads(ct("trace", file, "--json").out) == json.loads(ct("-C", lung.root, "trace", file, "--json").out)


def test_a_file_of_two_projects_is_shown_of_both(outside: Path, tmp_path: Path) -> None:
    made = [_known(tmp_path / name, name) for name in ("liver", "lung")]
    file = _copy(made[0], "joined/all", "table", outside / "some.tsv")
    said = ct("trace", file)
    assert said.code == 0 and [line for line in said.out.splitlines() if line[:3] == "== "] == ["== liver", "== lung"]
    asked = ct("trace", file, "--json")
    assert (asked.code, asked.out) == (2, "") and "--project liver or --project lung" in asked.err
    assert ct("trace", file, "--json", "--project", "lung").code == 0


def test_a_file_of_none_names_where_ct_looked(outside: Path, tmp_path: Path) -> None:
    (outside / "other.tsv").write_text("nobody made this\n")
    nothing = ct("trace", "other.tsv")
    assert nothing.code == 2 and "here is no project, and none is known" in nothing.err
    _known(tmp_path / "lung", "lung")
    gone = _known(tmp_path / "gone", "gone")
    shutil.rmtree(gone.root)
    said = ct("trace", "other.tsv")
    assert said.code == 2 and "is of no known project (looked at: lung; not looked at: gone (" in said.err


def test_a_project_that_cannot_be_asked_is_said(outside: Path, tmp_path: Path) -> None:
    lung, gone = (_known(tmp_path / name, name) for name in ("lung", "gone"))
    file = _copy(lung, "joined/all", "table", outside / "some.tsv")
    (gone.root / "ct.toml").write_text("no toml")
    found = owners_of(file)
    assert [one.id for one in found.projects] == ["lung"] and found.unread[0].startswith("not looked at: gone (")


def test_a_hidden_file_is_as_hidden_as_inside(outside: Path, tmp_path: Path) -> None:
    lung = _known(tmp_path / "lung", "lung")
    file = _copy(lung, "counted/A3", "n", outside / "some.txt")
    set_consent(lung, ["P2"], Statement("revoked", dated="2024-01-20", form="f"))
    said, inside = ct("trace", file), ct("-C", lung.root, "trace", file)
    assert (said.code, said.out) == (inside.code, inside.out) == (2, "")
    assert "who may not be used" in said.err and "A3" not in said.err and "P2" not in said.err


def test_what_is_no_file_still_needs_a_project(outside: Path, tmp_path: Path) -> None:
    _known(tmp_path / "lung", "lung")
    said = ct("trace", "joined/all")
    assert said.code != 0 and "no ct.toml in" in said.err
