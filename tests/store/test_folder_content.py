"""A folder is one content: what counts, what is refused with its place, and when it is read again."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctcore.store.digest import Signature, tagged_digest
from ctcore.store.folder_content import (
    TAG,
    Member,
    differing_members,
    keep_listing,
    listing,
    members_of,
    signature_at,
    try_contents,
    try_seen_contents,
)

TREE = {"Genome": "ACGT", "SA": "012", "sub/chrName.txt": "chr1\n"}


def tree(root: Path, files: dict[str, str] = TREE) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def digest(path: Path) -> str:
    found, problems = try_contents([path])
    assert problems == {}
    return found[path][0]


def refusal(path: Path) -> str:
    found, problems = try_contents([path])
    assert found == {}
    return problems[path]


def test_one_tree_has_one_digest_wherever_it_lies(tmp_path: Path) -> None:
    first = tree(tmp_path / "a")
    assert digest(tree(tmp_path / "b", dict(reversed(TREE.items())))) == digest(first)
    read, _ = try_contents([first])
    assert read[first][1] == sum(map(len, TREE.values())) and Signature(*read[first][1:]) == signature_at(first)


@pytest.mark.parametrize("what", ["bytes", "name", "empty folder", "gone", "new", "folder of one name"])
def test_whatever_is_in_a_folder_counts(tmp_path: Path, what: str) -> None:
    first, other = tree(tmp_path / "a"), tree(tmp_path / "b")
    if what == "bytes":
        (other / "SA").write_text("013")
    elif what == "name":
        (other / "SA").rename(other / "sa")
    elif what == "empty folder":
        (other / "none").mkdir()
    elif what == "gone":
        (other / "SA").unlink()
    elif what == "new":
        (other / ".hidden").write_text("")
    else:
        (other / "SA").unlink()
        (other / "SA").mkdir()
    assert digest(other) != digest(first) and signature_at(other) != signature_at(first)


def test_a_link_inside_is_what_it_leads_to(tmp_path: Path) -> None:
    linked, copied = tree(tmp_path / "a"), tree(tmp_path / "b")
    (linked / "again").symlink_to("Genome")
    (linked / "below").symlink_to("sub")
    (copied / "again").write_text("ACGT")
    shutil.copytree(copied / "sub", copied / "below")
    assert digest(linked) == digest(copied)
    (linked / "Genome").write_text("ACGA")
    assert digest(linked) != digest(copied)


def test_links_that_lead_out_or_in_circles_are_named(tmp_path: Path) -> None:
    outside = tree(tmp_path / "outside")
    cases = {"out": outside / "SA", "sub/up": "..", "none": "nowhere", "loop": "loop", "beside": "../abc"}
    (tmp_path / "abc").mkdir()
    said = {}
    for number, (name, target) in enumerate(cases.items()):
        folder = tree(tmp_path / f"a{number}")
        (folder / name).symlink_to(target)
        said[name] = refusal(folder)
    assert said == {
        "out": "out is a link out of the folder; put its target into the folder",
        "sub/up": "sub/up leads back to a folder above it; take the link out",
        "none": "none is a link to nothing; put its target into the folder, or take it out",
        "loop": "loop: Too many levels of symbolic links",
        "beside": "beside is a link out of the folder; put its target into the folder",
    }


def test_two_folders_that_link_to_each_other_are_a_circle(tmp_path: Path) -> None:
    folder = tree(tmp_path / "a", {"x/1": "1", "y/2": "2"})
    (folder / "x/to").symlink_to("../y")
    (folder / "y/to").symlink_to("../x")
    assert refusal(folder) == "x/to/to leads back to a folder above it; take the link out"


def test_what_is_no_content_is_named(tmp_path: Path) -> None:
    folder = tree(tmp_path / "a")
    os.mkfifo(folder / "sub" / "pipe")
    assert refusal(folder) == "sub/pipe is neither a file nor a folder; take it out"
    with pytest.raises(OSError, match="sub/pipe is neither a file"):
        signature_at(folder)


def test_names_that_are_no_text_count_and_are_shown(tmp_path: Path) -> None:
    first, other = tree(tmp_path / "a"), tree(tmp_path / "b")
    with open(os.fsencode(first) + b"/\xff\n", "wb") as stream:
        stream.write(b"x")
    with open(os.fsencode(other) + b"/\xfe\n", "wb") as stream:
        stream.write(b"x")
    assert digest(first) != digest(other)
    texts: dict[str, bytes] = {}
    found, _ = try_contents([first, other], keep=texts.__setitem__)
    for name, text in texts.items():
        keep_listing(tmp_path / "store", name, text)
    assert differing_members(tmp_path / "store", found[first][0], found[other][0]) == ["\\xfe\\n", "\\xff\\n"]


names = st.binary(min_size=1, max_size=4).filter(lambda name: b"\0" not in name and b"/" not in name)
trees = st.dictionaries(names, st.one_of(st.none(), st.sampled_from(["0" * 64, "1" * 64])), max_size=4)


@given(trees, trees)
def test_a_listing_says_which_tree_it_is_of(first: dict[bytes, str | None], other: dict[bytes, str | None]) -> None:
    """Whatever bytes are in the names: two trees never have one text."""
    texts = []
    for files in (first, other):
        members = [Member(name, None if one is None else Signature(0, 0, 0, 0)) for name, one in files.items()]
        texts.append(listing(members, {name: one for name, one in files.items() if one is not None}))
    assert (texts[0] == texts[1]) == (first == other)


class Known(dict[Path, tuple[Signature, str]]):
    """A memory of digests."""

    def lookup(self, wanted: dict[Path, Signature]) -> dict[Path, str]:
        return {path: self[path][1] for path, seen in wanted.items() if path in self and self[path][0] == seen}

    def remember(self, found: dict[Path, tuple[Signature, str]]) -> None:
        self.update(found)


def aged(root: Path) -> Path:
    """Old enough to be remembered, but for the time of its last change, which nobody can set."""
    for path in root.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return root


def test_an_unchanged_folder_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctcore.store.folder_content.is_old", lambda _seen, _began: True)
    folder, memory, read = aged(tree(tmp_path / "a")), Known(), list[int]()
    for _ in range(2):
        found, problems = try_seen_contents({folder: signature_at(folder)}, memory, read.append)
    assert problems == {} and sum(read) == sum(map(len, TREE.values())) and found[folder][0] == digest(folder)
    (folder / "SA").write_text("210")
    again, _ = try_seen_contents({folder: signature_at(folder)}, memory, read.append)
    assert again[folder][0] != found[folder][0]


def test_a_young_folder_is_read_once_more(tmp_path: Path) -> None:
    folder, memory = tree(tmp_path / "a"), Known()
    found, _ = try_seen_contents({folder: signature_at(folder)}, memory)
    assert memory == {} and found[folder][1].ctime_ns == 0, "another write in the same tick would not show"


def test_files_and_folders_are_read_together(tmp_path: Path) -> None:
    folder, file = tree(tmp_path / "a"), tmp_path / "a" / "SA"
    found, problems = try_contents([folder, file, tmp_path / "none"])
    assert set(found) == {folder, file} and problems == {tmp_path / "none": "missing"}
    assert [one.name for one in members_of(folder)] == [b"Genome", b"SA", b"sub", b"sub/chrName.txt"]


def test_a_listing_that_was_changed_tells_nothing(tmp_path: Path) -> None:
    first, other = b"/ 0 1 a\n", b"/ 0 1 b\n"
    digests = [tagged_digest(TAG, text) for text in (first, other)]
    for name, text in zip(digests, (first, other), strict=True):
        keep_listing(tmp_path, name, text)
    assert differing_members(tmp_path, *digests) == ["a", "b"]
    place = tmp_path / ".folders" / digests[0]
    place.chmod(0o600)
    place.write_bytes(b"/ 0 1 c\n")
    assert differing_members(tmp_path, *digests) == [] == differing_members(tmp_path, digests[1], "0" * 64)
