"""A catalog belongs to one project, an archived one refuses to be written, and a lost part is described."""

import json
from pathlib import Path

import pytest

from ctcore.catalog.ownership import (
    OWNER,
    PLACE,
    STATE,
    ProjectState,
    check_owner,
    held_text,
    project_state_of,
    refusal_text,
)
from ctcore.errors import CatalogError


def project(folder: Path, name: str) -> Path:
    folder.mkdir()
    (folder / "ct.toml").write_text(f'[project]\nid = "{name}"\n')
    return folder


def test_the_catalog_of_another_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"c\.db is the catalog of the project other, and .*ct\.toml says toy"):
        check_owner({OWNER: "other"}, "toy", tmp_path, "c.db", shared=False)
    check_owner({OWNER: "toy"}, "toy", tmp_path, "c.db", shared=False)
    check_owner({}, "toy", tmp_path, "c.db", shared=False)


def test_two_folders_of_one_id_do_not_share_a_database(tmp_path: Path) -> None:
    one, two = project(tmp_path / "one", "toy"), project(tmp_path / "two", "toy")
    known = {OWNER: "toy", PLACE: str(one)}
    with pytest.raises(CatalogError, match="two folders have the ID toy in one database"):
        check_owner(known, "toy", two, "postgres", shared=True)
    check_owner(known, "toy", two, "catalog.db", shared=False)
    check_owner(known, "toy", one, "postgres", shared=True)


def test_a_moved_or_linked_folder_is_the_same_project(tmp_path: Path) -> None:
    here = project(tmp_path / "here", "toy")
    check_owner({PLACE: str(tmp_path / "gone")}, "toy", here, "postgres", shared=True)
    (tmp_path / "link").symlink_to(here)
    check_owner({PLACE: str(tmp_path / "link")}, "toy", here, "postgres", shared=True)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/ct.toml").write_text("no toml [")
    check_owner({PLACE: str(tmp_path / "broken")}, "toy", here, "postgres", shared=True)


def test_a_refusal_names_the_state_and_the_way_out() -> None:
    life = ProjectState("archived", "2026-03-04", "ada", "published")
    assert project_state_of({STATE: life.text()}) == life and life.is_archived
    said = refusal_text("toy", life)
    assert "archived since 2026-03-04 by ada: published" in said and "`ct projects open toy --reason TEXT`" in said
    assert not project_state_of({}).is_archived


@pytest.mark.parametrize(
    ("lost", "others", "more", "words"),
    [
        ({"4": "ab"}, 0, False, "event 4 is not what was written. "),
        ({"4-4": "missing"}, 0, False, "event 4 is lost. "),
        ({"4-6": "missing"}, 1, False, "events 4 to 6 are lost; 1 event of another history had to be set aside. "),
        ({}, 2, True, "2 events of another history had to be set aside; more may be lost, and nothing tells what. "),
    ],
)
def test_a_loss_is_described_by_its_events(lost: dict[str, str], others: int, more: bool, words: str) -> None:
    assert held_text(json.dumps({"lost": lost, "others": others, "more": more})).startswith(words)
