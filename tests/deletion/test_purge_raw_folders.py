"""A purge of a person whose raw files are folders: each file in them is known, named, removed and proved."""

import gzip
import json
import os
import shutil
import tarfile
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.tables import digest_memory, event
from ctcore.deletion.proof import check
from ctcore.deletion.purge import remove
from ctcore.deletion.purge_plan import plan
from ctcore.deletion.raw_folders import MEMBERS, folder_listings
from ctcore.errors import SheetError
from ctcore.intake.raw_files import look
from ctcore.intake.register import register
from ctcore.lineage.containment import containment_of
from ctcore.project import Project
from ctcore.sheet.options import Options
from ctcore.store.digest import digest_files
from ctcore.store.folder_content import kept_listings
from tests.helpers.kit import again, make_all
from tests.helpers.purging import purge_patient, revoke
from tests.helpers.raw_folders import TOML, make_project, registered, sheet
from tests.helpers.shell import ct


@pytest.fixture
def project(tmp_path: Path, catalog_url: str) -> Project:
    """Everything made."""
    found = make_project(tmp_path / "toy")
    registered(found)
    assert set(make_all(found).values()) == {"made"}
    return found


def findings(project: Project) -> dict[str, str]:
    return dict(check(project, 1).findings)


def rows(project: Project, raw: bool = False) -> dict[str, tuple[str, str]]:
    return {row.what: (row.action, row.why) for row in plan(project, "P1", raw).rows}


def test_a_plan_names_the_folders_and_removes_the_lists(project: Project) -> None:
    revoke(project, "P1")
    said = rows(project)
    assert said["raw/A1"] == ("name", "raw folder inside the project; --raw removes it")
    assert said["store/.folders"] == ("remove", "lists of what is in raw folders")
    assert rows(project, raw=True)["raw/A2"] == ("remove", "raw folder inside the project")
    assert "raw/A3" not in said


def test_raw_folders_go_when_asked_and_others_stay(project: Project) -> None:
    revoke(project, "P1")
    remove(project, "P1", "asked", "P1", raw=True)
    assert [path.name for path in (project.root / "raw").iterdir()] == ["A3"]
    assert findings(project) == {} and len(kept_listings(project.store.root)) == 1


def test_raw_folders_stay_and_are_no_finding(project: Project) -> None:
    purge_patient(project, "P1")
    assert (project.root / "raw" / "A1" / "a.pod5").exists() and findings(project) == {}
    look(project)
    ct("-C", project.root, "verify")
    assert len(kept_listings(project.store.root)) == 1, "no look lists them again"


def test_no_file_of_the_project_names_what_was_inside(project: Project) -> None:
    (project.root / "raw" / "A1" / "Smith_John.pod5").write_text("signal\n")
    look(project)
    make_all(project)
    ct("-C", project.root, "accept", "called/A1", "--reason", "x")
    shutil.move(project.root / "raw" / "A1" / "Smith_John.pod5", project.root / "raw" / "A1" / "Smith_J.pod5")
    listed = project.root / "raw" / "b3sums.txt"
    a3 = project.root / "raw" / "A3" / "a.pod5"
    listed.write_text(f"{digest_files([a3])[a3]}  A3/a.pod5\n")
    for path in (project.root / "raw").rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    time.sleep(0.03)  # old enough for what was said to be kept
    register(project, sheet(project.root), options=Options(checksums=(listed,)))
    assert "Smith_J" in (project.work / "registered.json").read_text()
    (project.root / "raw" / "A1" / "Smith_link").symlink_to("nowhere")
    assert "Smith_link is a link to nothing" in look(project).problems[0]
    make_all(project)
    (project.root / "raw" / "A1" / "Smith_link").unlink()
    (project.root / "raw" / "A1" / "Smith_J.pod5").rename(project.root / "raw" / "A1" / "Smith.pod5")
    look(project)  # of the tree before no making tells, and nobody has it any more
    purge_patient(project, "P1")
    for place in ("store", "work", "catalog.db", "provenance.jsonl"):
        top = project.root / place
        for path in [top] if top.is_file() else [one for one in top.rglob("*") if one.is_file()]:
            assert b"Smith" not in path.read_bytes(), path


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("how", ["copy", "tar", "gz", "into another's folder"])
def test_a_copy_of_a_file_inside_is_found(project: Project, when: str, how: str) -> None:
    raw = project.root / "raw"
    kept = raw / "A1" / "skip" / "b.pod5"
    if when == "after":
        purge_patient(project, "P1")
    place = project.root / "notes" / "copy.bin"
    place.parent.mkdir()
    if how == "copy":
        shutil.copy(kept, place)
    elif how == "tar":
        with tarfile.open(place, "w:gz") as archive:
            archive.add(raw / "A1", "A1")
    elif how == "gz":
        place.write_bytes(gzip.compress(kept.read_bytes()))
    else:
        place = raw / "A3" / "skip" / "b2.pod5"
        shutil.copy(kept, place)
    if when == "before":
        purge_patient(project, "P1")
    said = findings(project)
    ((where, what),) = said.items()
    assert where == str(place.relative_to(project.root)) and "has the bytes of assay/A1 pod5" in what


def test_a_copy_in_anothers_folder_is_named_and_stays(project: Project) -> None:
    place = project.root / "raw" / "A3" / "skip" / "b2.pod5"
    shutil.copy(project.root / "raw" / "A1" / "skip" / "b.pod5", place)
    revoke(project, "P1")
    remove(project, "P1", "asked", "P1", raw=True)
    assert place.exists() and "yours to remove" in findings(project)["raw/A3/skip/b2.pod5"]


def test_after_the_folder_has_gone_its_copies_are_known(project: Project) -> None:
    shutil.copy(project.root / "raw" / "A2" / "a.pod5", project.root / "copy")
    revoke(project, "P1")
    shutil.rmtree(project.root / "raw" / "A1")
    remove(project, "P1", "asked", "P1", raw=True)
    assert not (project.root / "copy").exists(), "inside the project it goes with the raw files"
    (project.root / "copy").write_text("more of A1, skipped\n")
    assert list(findings(project)) == ["copy"]


def test_what_others_folders_have_too_is_nobodys_copy(project: Project) -> None:
    for name in ("A1", "A3"):
        (project.root / "raw" / name / "version.txt").write_text("pod5 0.3\n")
    look(project)
    (project.root / "version.txt").write_text("pod5 0.3\n")
    purge_patient(project, "P1")
    assert findings(project) == {}


def test_two_with_equal_folders_keep_the_list(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    for name in ("A1", "A3"):
        shutil.rmtree(tmp_path / "raw" / name)
        shutil.copytree(tmp_path / "raw" / "A2", tmp_path / "raw" / name)
    registered(project)
    assert len(kept_listings(project.store.root)) == 1
    purge_patient(project, "P1")
    assert len(kept_listings(project.store.root)) == 1 and findings(project) == {}
    with project.catalog.read() as connection:
        found = folder_listings(project, connection, containment_of(project, connection, "P1"))
    assert found.theirs == {} and found.unused == []


def test_a_folder_whose_list_is_lost_is_read_for_the_record(project: Project) -> None:
    shutil.rmtree(project.store.root / ".folders")
    purge_patient(project, "P1")
    shutil.copy(project.root / "raw" / "A1" / "a.pod5", project.root / "copy")
    assert list(findings(project)) == ["copy"]
    with project.catalog.read() as connection:
        body = connection.execute(select(event.c.body).where(event.c.kind == "purge")).scalar_one()
    assert set(json.loads(body)[MEMBERS]) == {"assay/A1 pod5", "assay/A2 pod5"} and "a.pod5" not in body


def test_remembered_checksums_of_files_inside_go(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    listed = tmp_path / "b3sums.txt"
    listed.write_text(f"{'0' * 64}  raw/A1/a.pod5\n")
    with pytest.raises(SheetError, match=r"raw/A1/a\.pod5 has the blake3"):
        register(project, sheet(tmp_path), options=Options(checksums=(listed,)))
    registered(project)
    with project.catalog.write() as writer:
        seen = {"size": 1, "mtime_ns": 1, "inode": 1, "ctime_ns": 1, "digest": "0" * 64}
        writer.insert(digest_memory, [{"path": f"{kind}raw/A1/a.pod5", **seen} for kind in ("md5:", "sha256:")])
    purge_patient(project, "P1")
    with project.catalog.read() as connection:
        paths = connection.execute(select(digest_memory.c.path)).scalars().all()
    assert not [path for path in paths if "A1" in path]


def test_a_folder_with_files_of_others_does_not_go_whole(project: Project) -> None:
    (project.root / "raw" / "A3").rename(project.root / "raw" / "A1" / "theirs")
    (project.root / "raw" / "A3").symlink_to("A1/theirs")
    revoke(project, "P1")
    assert rows(project, raw=True)["raw/A1"] == (
        "name",
        "raw folder that has files of others, too: yours to take apart",
    )
    remove(project, "P1", "asked", "P1", raw=True)
    assert (project.root / "raw" / "A1" / "theirs" / "a.pod5").exists()


def test_a_purge_survives_recovery(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    registered(project)
    make_all(project)
    purge_patient(project, "P1")
    for name in ("catalog.db", "catalog.db-wal", "catalog.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    assert ct("-C", tmp_path, "recover").code == 0
    (tmp_path / "copy").write_text("more of A1, skipped\n")
    assert list(findings(again(project))) == ["copy"]


def test_undeclared_folders_are_purged_too(project: Project) -> None:
    """A role that ct.toml has no more."""
    (project.root / "ct.toml").write_text(TOML.replace('folders = ["pod5"]\n', "", 1))
    shutil.rmtree(project.root / "steps")
    (project.root / "steps").mkdir()
    opened = again(project)
    look(opened)
    purge_patient(opened, "P1")
    shutil.copy(project.root / "raw" / "A1" / "a.pod5", project.root / "copy")
    assert list(findings(opened)) == ["copy"]
