"""The list of projects is written whole, and where it lies."""

import json
from pathlib import Path

import pytest

from ctcore.config import address_book


def test_a_list_behind_a_link_is_changed_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, link = tmp_path / "shared" / "projects.json", tmp_path / "projects.json"
    place.parent.mkdir()
    link.symlink_to(place)
    monkeypatch.setenv(address_book.VARIABLE, str(link))
    with address_book.changing_projects() as listed:
        listed["toy"] = tmp_path / "toy"
    assert link.is_symlink() and address_book.known_projects() == {"toy": tmp_path / "toy"}
    assert json.loads(place.read_text())["projects"] == {"toy": str(tmp_path / "toy")}
    assert {one.name for one in place.parent.iterdir()} == {"projects.json"}, "no half of it is left"
