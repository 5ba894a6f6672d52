"""Claims on ctcore.store.manifest: identity is names and bytes, and damage is named."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from ctcore.errors import StoreError
from ctcore.store.digest import Signature
from ctcore.store.manifest import (
    MANIFEST,
    SIDECAR,
    Damage,
    ExpectedArtifact,
    FileEntry,
    Manifest,
    check_many,
    manifest_of,
)

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,8}){0,2}", fullmatch=True)
contents = st.dictionaries(names, st.binary(max_size=20), min_size=1, max_size=6)


def manifest(content: dict[str, bytes]) -> Manifest:
    return Manifest({name: FileEntry(blake3(data).hexdigest(), len(data)) for name, data in content.items()})


def write(folder: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@given(contents, contents)
def test_the_data_version_is_names_and_bytes_and_nothing_else(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    assert (manifest(one).data_version == manifest(other).data_version) == (one == other)
    assert manifest(dict(reversed(one.items()))).data_version == manifest(one).data_version


@given(contents, st.data())
def test_any_byte_or_name_that_changes_changes_it(content: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(content)))
    other_name = data.draw(names.filter(lambda n: n not in content))
    renamed = {other_name if n == name else n: b for n, b in content.items()}
    longer = content | {name: content[name] + b"\0"}
    fewer = {n: b for n, b in content.items() if n != name}
    versions = {manifest(c).data_version for c in (content, renamed, longer, fewer)}
    assert len(versions) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"ab": b"c"}, {"a": b"bc"}),
        ({"a": b"b", "c": b"d"}, {"a": b"d", "c": b"b"}),
        ({"a": b"x", "b": b""}, {"a": b"", "b": b"x"}),
        ({"a/b": b"x"}, {"a": b"x"}),
        ({"a": b"x"}, {"a": b"x", "b": b""}),
        ({"a.b": b"x"}, {"a-b": b"x"}),
    ],
)
def test_moving_what_belongs_to_the_name_or_the_bytes_is_seen(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    assert manifest(one).data_version != manifest(other).data_version


def test_a_file_that_contains_a_manifest_is_not_that_manifest() -> None:
    inner = manifest({"a": b"1", "b": b"2"})
    assert manifest({"a": inner.text().encode()}).data_version != inner.data_version
    assert blake3(inner.text().encode()).hexdigest() != inner.data_version


def test_time_permissions_and_place_do_not_count(tmp_path: Path) -> None:
    content = {"b.txt": b"2", "a/c.txt": b"1"}
    here, there = write(tmp_path / "x", content), write(tmp_path / "y" / "z", dict(reversed(content.items())))
    os.utime(there / "b.txt", (1, 1))
    (there / "b.txt").chmod(0o400)
    assert manifest_of(here).data_version == manifest_of(there, ["b.txt", "a/c.txt"]).data_version
    assert manifest_of(here) == manifest(content)


@given(contents)
def test_the_text_gives_the_manifest_back(content: dict[str, bytes]) -> None:
    made = manifest(content)
    sizes = {name: entry.size for name, entry in made.files.items()}
    assert Manifest.parse(made.text(), sizes) == made
    assert Manifest.parse(made.text()).data_version == made.data_version
    assert made.text().splitlines() == sorted(made.text().splitlines(), key=lambda line: line[66:].encode())


DIGEST = "0" * 64


@pytest.mark.parametrize(
    "text",
    [
        f"{DIGEST}  b\n{DIGEST}  a\n",
        f"{DIGEST}  a\n{DIGEST}  a\n",
        f"{DIGEST}  a",
        f"{DIGEST} a\n",
        f"{DIGEST}  a\r\n",
        f"{'A' * 64}  a\n",
        f"{DIGEST[1:]}  a\n",
        f"{DIGEST}  ../a\n",
        f"\n{DIGEST}  a\n",
        f"{DIGEST}  a b\n",
    ],
)
def test_a_text_that_no_manifest_writes_is_refused(text: str) -> None:
    with pytest.raises(StoreError):
        Manifest.parse(text)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../a",
        "a/../b",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a/.b",
        "-a",
        "a b",
        "a\nb",
        "a\n",
        "ä",
        "a\\b",
        "a\0",
    ],
)
def test_names_that_are_not_inert_are_refused(name: str) -> None:
    with pytest.raises(StoreError):
        Manifest({name: FileEntry(DIGEST)})


@pytest.mark.parametrize("name", [MANIFEST, SIDECAR])
def test_the_stores_own_names_are_taken(name: str, tmp_path: Path) -> None:
    write(tmp_path, {name: b"", "a": b"1"})
    with pytest.raises(StoreError, match="rename"):
        manifest_of(tmp_path, [name])
    assert list(manifest_of(tmp_path).files) == ["a"]


def test_a_link_is_no_file_of_an_artifact(tmp_path: Path) -> None:
    write(tmp_path, {"a": b"1"})
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(StoreError, match="b: not there as a regular file"):
        manifest_of(tmp_path)
    with pytest.raises(StoreError, match="c"):
        manifest_of(tmp_path, ["a", "c"])


def test_b3sum_accepts_the_text_and_sees_a_change(tmp_path: Path) -> None:
    if not shutil.which("b3sum"):
        pytest.skip("b3sum is not installed")
    write(tmp_path, {"a.txt": b"1", "deep/er/b-c_d.e": b"2" * 100_000})
    (tmp_path / MANIFEST).write_text(manifest_of(tmp_path).text())
    command = ["b3sum", "-c", MANIFEST]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    (tmp_path / "a.txt").write_bytes(b"3")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 1


CONTENT = {"a.txt": b"0123456789", "d/b.txt": b"abc"}


@pytest.fixture
def artifact(tmp_path: Path) -> ExpectedArtifact:
    """An artifact as it is after publishing, with what the ledger knows of it."""
    side = json.dumps({"store": {"data_version": manifest(CONTENT).data_version}})
    write(tmp_path / "x", CONTENT | {MANIFEST: manifest(CONTENT).text().encode(), SIDECAR: side.encode()})
    made = manifest_of(tmp_path / "x")
    signatures = {name: Signature.of(tmp_path / "x" / name) for name in CONTENT}
    return ExpectedArtifact(tmp_path / "x", {name: (e.size, e.digest) for name, e in made.files.items()}, signatures)


def grow(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"0123456789ab")


def change(folder: Path) -> None:
    seen = Signature.of(folder / "a.txt")
    (folder / "a.txt").write_bytes(b"9876543210")
    os.utime(folder / "a.txt", ns=(0, seen.mtime_ns + 1))


def replace_by_link(folder: Path) -> None:
    (folder / "a.txt").rename(folder.parent / "a")
    (folder / "a.txt").symlink_to(folder.parent / "a")


def empty_folder(folder: Path) -> None:
    (folder / "e").mkdir()


def other_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text(manifest(CONTENT).text().replace("a.txt", "c.txt"))


CHANGED = f"changed (digest {blake3(CONTENT['a.txt']).hexdigest()[:8]}… → {blake3(b'9876543210').hexdigest()[:8]}…)"


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("harm", "file", "problem"),
    [
        (lambda f: (f / "a.txt").unlink(), "a.txt", "gone"),
        (lambda f: (f / "d/b.txt").unlink(), "d/b.txt", "gone"),
        (grow, "a.txt", "size 10 → 12"),
        (change, "a.txt", CHANGED),
        (replace_by_link, "a.txt", "no longer a regular file"),
        (lambda f: (f / "d/new").touch(), "d/new", "not of this artifact"),
        (empty_folder, "e/", "not of this artifact"),
        (lambda f: (f / MANIFEST).unlink(), MANIFEST, "gone"),
    ],
)
def test_damage_is_named(
    artifact: ExpectedArtifact, harm: Callable[[Path], object], file: str, problem: str, deep: bool
) -> None:
    assert check_many([artifact], deep=deep) == [[]]
    harm(Path(artifact.folder))
    found = [damage for damage in check_many([artifact], deep=deep)[0] if damage.file != "d/"]
    assert found == [Damage(file, problem)]


def test_only_deep_sees_a_change_behind_an_unchanged_signature(artifact: ExpectedArtifact) -> None:
    path, assumed = Path(artifact.folder) / "a.txt", artifact.signatures
    assert assumed
    change(Path(artifact.folder))
    os.utime(path, ns=(0, assumed["a.txt"].mtime_ns))
    assert check_many([artifact]) == [[Damage("a.txt", CHANGED)]], "a program set the time back; the ctime is new"
    rotten = ExpectedArtifact(artifact.folder, artifact.files, {**assumed, "a.txt": Signature.of(path)})
    assert check_many([rotten]) == [[]], "the disk has changed it, and tells nobody"
    assert check_many([rotten], deep=True) == [[Damage("a.txt", CHANGED)]]


@pytest.mark.parametrize(
    ("harm", "file"), [(other_manifest, MANIFEST), (lambda f: (f / SIDECAR).write_text("{"), SIDECAR)]
)
def test_deep_reads_what_the_store_wrote(artifact: ExpectedArtifact, harm: Callable[[Path], object], file: str) -> None:
    harm(Path(artifact.folder))
    assert [damage.file for damage in check_many([artifact], deep=True)[0]] == [file]


def test_quick_reads_only_what_was_touched(artifact: ExpectedArtifact) -> None:
    read: list[int] = []
    os.utime(Path(artifact.folder) / "d/b.txt", (1, 1))
    assert check_many([artifact], on_bytes=read.append) == [[]]
    assert sum(read) == len(CONTENT["d/b.txt"])
    assert check_many([ExpectedArtifact(artifact.folder, artifact.files)], on_bytes=read.append) == [[]]
    assert sum(read) == len(CONTENT["d/b.txt"]) * 2 + len(CONTENT["a.txt"])


def test_another_file_of_the_same_size_and_time_is_read(artifact: ExpectedArtifact, tmp_path: Path) -> None:
    path, other = Path(artifact.folder) / "a.txt", tmp_path / "other"
    other.write_bytes(b"9876543210")
    os.utime(other, ns=(0, Signature.of(path).mtime_ns))
    other.replace(path)
    assert check_many([artifact]) == [[Damage("a.txt", CHANGED)]]


def test_many_are_checked_in_their_order(artifact: ExpectedArtifact, tmp_path: Path) -> None:
    nowhere = ExpectedArtifact(tmp_path / "nowhere", artifact.files)
    copy = ExpectedArtifact(shutil.copytree(artifact.folder, tmp_path / "copy"), artifact.files, artifact.signatures)
    change(tmp_path / "copy")
    assert check_many([artifact, nowhere, copy, artifact]) == [
        [],
        [Damage("a.txt", "gone"), Damage("d/b.txt", "gone")],
        [Damage("a.txt", CHANGED)],
        [],
    ]
