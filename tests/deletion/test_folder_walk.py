"""A walk visits each folder once, also behind links, comes to an end, and names all that it could not read."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctcore.deletion import folder_walk
from ctcore.deletion.folder_walk import FolderWalk

FOLDERS = ("store", "store/a", "work", "work/b")


def walked(root: Path, skips: dict[str, set[str]] | None = None) -> tuple[list[str], list[tuple[str, str]]]:
    walk = FolderWalk(os.path.realpath(root), "store", lambda folder: (skips or {}).get(folder, ()))
    return [name for name, _ in walk.files()], walk.unread


def made(root: Path) -> Path:
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "x.txt").write_text(folder)
    return root


@given(st.lists(st.tuples(st.sampled_from(FOLDERS), st.sampled_from(FOLDERS)), max_size=4))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_links_in_circles_end_and_each_file_is_seen_once(tmp_path: Path, links: list[tuple[str, str]]) -> None:
    root = made(Path(os.path.realpath(tmp_path)) / f"r{len(os.listdir(tmp_path))}")
    for number, (place, target) in enumerate(links):
        (root / place / f"to{number}").symlink_to(root / target)
    names, unread = walked(root)
    real = [os.path.realpath(root / name) for name in names]
    assert sorted(real) == sorted(str(root / folder / "x.txt") for folder in FOLDERS) and not unread


def test_a_file_behind_a_link_to_elsewhere_is_seen(tmp_path: Path) -> None:
    root, disk = made(tmp_path / "toy"), tmp_path / "disk"
    disk.mkdir()
    (disk / "copy.txt").write_text("x")
    (root / "work/to").symlink_to(disk)
    (root / "one.txt").symlink_to(disk / "copy.txt")
    names, _ = walked(root)
    assert {"work/to/copy.txt", "one.txt"} <= set(names)


def test_skipped_names_are_skipped_in_their_folder_only(tmp_path: Path) -> None:
    names, _ = walked(made(tmp_path), {"store": {"x.txt", "a"}})
    assert sorted(names) == ["work/b/x.txt", "work/x.txt"]


def test_a_broken_link_is_named_only_in_the_first_folder(tmp_path: Path) -> None:
    root = made(tmp_path)
    (root / "store/gone").symlink_to(root / "nowhere")
    (root / "work/gone").symlink_to(root / "nowhere")
    _, unread = walked(root)
    assert unread == [("store/gone", f"is a link to {root}/nowhere, which is missing")]


def test_pipes_and_system_folders_are_no_files(tmp_path: Path) -> None:
    root = made(tmp_path)
    os.mkfifo(root / "work/pipe")
    (root / "work/proc").symlink_to("/proc/self")
    names, unread = walked(root)
    assert len(names) == len(FOLDERS) and not unread


def test_folders_beyond_the_limit_are_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_walk, "BEHIND", 2)
    root, disk = made(tmp_path / "toy"), tmp_path / "disk"
    for name in "abcd":
        (disk / name).mkdir(parents=True)
        (disk / name / "x.txt").write_text(name)
    (root / "work/to").symlink_to(disk)
    names, unread = walked(root)
    assert len([name for name in names if name.startswith("work/to")]) == 1, "the disk itself and one folder of it"
    assert [said for _, said in unread] == ["more than 2 folders lie behind links; ct did not search the others"]
