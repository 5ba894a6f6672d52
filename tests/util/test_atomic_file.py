"""A file is written whole, with the rights and in the place of the one that was there."""

import json
import os
from pathlib import Path

import pytest

from ctcore.util.atomic_file import leave_json, write_whole


def test_a_file_keeps_its_rights_and_a_link_its_place(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    file, link = tmp_path / "shared" / "ct.toml", tmp_path / "ct.toml"
    file.write_text("old")
    file.chmod(0o664)
    link.symlink_to(file)
    write_whole(link, b"new", durable=True)
    assert link.is_symlink() and file.read_text() == "new" and file.stat().st_mode & 0o777 == 0o664
    assert write_whole(file, b"newer", mode=0o444) == file and file.stat().st_mode & 0o777 == 0o444
    assert [path.name for path in file.parent.iterdir()] == ["ct.toml"]


def test_only_what_is_durable_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = list[int]()
    monkeypatch.setattr(os, "fsync", waited.append)
    write_whole(tmp_path / "new" / "a", b"a")
    assert waited == []
    write_whole(tmp_path / "b", b"b", durable=True)
    assert len(waited) == 1


def test_a_file_left_for_another_process_is_whole(tmp_path: Path) -> None:
    place = tmp_path / "new" / "folder" / "one.json"
    leave_json(str(place), {"a": [1, None]})
    leave_json(str(place), {"a": (2,)})
    assert json.loads(place.read_bytes()) == {"a": [2]} and os.listdir(place.parent) == ["one.json"]
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        leave_json(str(tmp_path / "taken"), 1)
    assert sorted(os.listdir(tmp_path)) == ["new", "taken"]
