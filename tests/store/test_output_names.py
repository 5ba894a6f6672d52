"""The data version covers which output is which file: names that are exchanged are another content."""

import json
import os
from pathlib import Path

import pytest

from ctcore.integrity.verify import verify
from ctcore.project import Project
from ctcore.store.manifest import Damage, FileEntry, Manifest
from ctcore.store.store import PublishedArtifact, Store
from tests.helpers.kit import again, make, make_all, make_project, reasons

KEY = "ab" * 32
TWO = '''
from ctcore.step import Call, step


@step(level="assay", files=["reads"], outputs={"a": "1.txt", "b": "2.txt"})
def two(call: Call) -> None:
    """One file and another, always the same bytes in each."""
    (call.folder / "1.txt").write_text("one")
    (call.folder / "2.txt").write_text("two")


@step(level="specimen", inputs={"parts": "two"}, outputs={"o": "o.txt"})
def first(call: Call) -> None:
    """What `a` is."""
    call.out("o").write_text("".join(one["a"].read_text() for one in call.many("parts")))
'''


def swapped(project: Project) -> Project:
    path = project.root / "steps" / "toy.py"
    path.write_text(path.read_text().replace('{"a": "1.txt", "b": "2.txt"}', '{"a": "2.txt", "b": "1.txt"}'))
    return again(project)


def output(project: Project, partition: str) -> str:
    found = sorted((project.store.root / "first" / partition).glob("*/o.txt"), key=lambda path: path.stat().st_ctime_ns)
    return found[-1].read_text()


def test_exchanged_output_names_make_who_reads_them_stale(tmp_path: Path, catalog_url: str) -> None:
    project = make_project(tmp_path / "toy", steps=TWO)
    make_all(project)
    assert output(project, "S1") == "oneone"
    other = swapped(project)
    make(other, "two")
    assert reasons(other) == {"first/S1": ["input", "input"], "first/S2": ["input"]}
    make_all(other)
    assert output(other, "S1") == "twotwo" and verify(other).findings == ()


def published(store: Store, outputs: dict[str, str] | None, key: str = KEY, name: str = "S1") -> PublishedArtifact:
    staged = store.stage("two", name, key)
    (staged / "1.txt").write_text("one")
    (staged / "2.txt").write_text("two")
    sidecar = {} if outputs is None else {"outputs": outputs}
    return store.publish(staged, "two", name, key, sidecar, ["1.txt", "2.txt"])


def test_b3sum_reads_the_manifest_and_versions_need_no_ct(tmp_path: Path) -> None:
    made = published(Store(tmp_path), {"b": "2.txt", "a": "1.txt"})
    text = (made.folder / "MANIFEST.b3").read_text()
    assert [line.split("  ")[1] for line in text.splitlines()] == ["1.txt", "2.txt"]
    from blake3 import blake3

    by_hand = blake3(b"ct.files.v2\0" + text.encode() + b'{"a":"1.txt","b":"2.txt"}').hexdigest()
    assert made.data_version == by_hand
    assert json.loads((made.folder / "ct.json").read_text())["store"]["tag"] == "ct.files.v2"


def test_an_artifact_from_before_is_still_found_and_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = published(store, {"a": "1.txt", "b": "2.txt"})
    place = made.folder / "ct.json"
    side = json.loads(place.read_text())
    old = Manifest({name: FileEntry(one["digest"], one["size"]) for name, one in side["store"]["files"].items()})
    del side["store"]["tag"]
    side["store"] |= {"format": 1, "data_version": old.data_version}
    rewrite(place, json.dumps(side))
    found = store.find("two", "S1", KEY)
    assert found is not None and found.data_version == old.data_version != made.data_version
    assert store.check(found.folder, found.manifest, deep=True) == []
    assert published(store, {"a": "1.txt", "b": "2.txt"}).data_version == old.data_version  # the first one is kept


def rewrite(place: Path, text: str) -> None:
    os.chmod(place.parent, 0o755)
    os.chmod(place, 0o644)
    place.write_text(text)
    os.chmod(place, 0o444)
    os.chmod(place.parent, 0o555)


def test_exchanged_names_in_the_sidecar_are_found(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", steps=TWO)
    make(project, "two")
    (place,) = (project.store.root / "two" / "A1").glob("*/ct.json")
    text = place.read_text()
    side = json.loads(text)
    side["outputs"] = {"a": "2.txt", "b": "1.txt"}
    rewrite(place, json.dumps(side))
    (one,) = [one for one in make(project, "first") if one.state == "failed"]
    assert one.node == ("first", "S1") and "ct.json" in one.why and "ct verify" in one.why
    assert [(found.node, found.file) for found in verify(project).findings] == [(("two", "A1"), "ct.json")]
    rewrite(place, text)
    assert verify(project).findings == ()


@pytest.mark.parametrize("outputs", [{"a": "2.txt", "b": "1.txt"}, {"x": "1.txt", "b": "2.txt"}])
def test_other_names_are_another_version(tmp_path: Path, outputs: dict[str, str]) -> None:
    store = Store(tmp_path)
    one, other = published(store, {"a": "1.txt", "b": "2.txt"}), published(store, outputs, name="S2")
    assert one.data_version != other.data_version
    assert (one.folder / "MANIFEST.b3").read_bytes() == (other.folder / "MANIFEST.b3").read_bytes()
    assert store.check(other.folder, one.manifest, deep=True) == []
    assert published(store, {"b": "2.txt", "a": "1.txt"}, name="S3").data_version == one.data_version


def test_damage_of_the_sidecar_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = published(store, {"a": "1.txt", "b": "2.txt"})
    rewrite(made.folder / "ct.json", "{}")
    (found,) = store.check(made.folder, made.manifest, deep=True)
    assert isinstance(found, Damage) and found.file == "ct.json"
