"""Registering the same once more: nothing is read again, and never where anything could be otherwise."""

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update

import ctcore.intake.unchanged
from ctcore.catalog.tables import entity, event, file
from ctcore.errors import SheetError, Usage
from ctcore.intake.register import known_sheet, register
from ctcore.intake.sheet_diff import AllowedChanges, SheetChanges
from ctcore.project import Project
from ctcore.sheet.options import Options
from tests.helpers.kit import ROWS, TOML, again, make_project, write_sheet
from tests.helpers.shell import ct

both = pytest.mark.usefixtures("catalog_url")
UNCHANGED = {"patient": 2, "specimen": 2, "assay": 3}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two patients, three assays, registered; their files are old."""
    made = make_project(tmp_path / "toy")
    settle(made)
    assert register(made, sheet(made)).as_before is None
    return again(made)


def sheet(project: Project) -> Path:
    return project.root / "sheet.csv"


def settle(project: Project) -> None:
    before = time.time() - 60
    for path in (project.root / "reads").iterdir():
        os.utime(path, (before, before))
    time.sleep(0.03)  # the clock of the kernel has ticked since: their ctime says whether they are written again


def once_more(project: Project, **how: Any) -> SheetChanges:
    """As a new process would."""
    return register(again(project), sheet(project), **how)


def rows_of_all(project: Project) -> list[Any]:
    with project.catalog.read() as connection:
        tables = [connection.execute(select(table)).all() for table in (entity, file)]
        return [*tables, connection.execute(select(func.count()).select_from(event)).scalar()]


@both
@pytest.mark.parametrize("dry_run", [True, False])
def test_the_same_sheet_is_not_read_again_and_says_the_same(project: Project, dry_run: bool) -> None:
    before = rows_of_all(project)
    found = once_more(project, dry_run=dry_run)
    assert found.as_before is not None and found.as_before[1] == 3
    assert (found.unchanged, bool(found), found.schema) == (UNCHANGED, False, [])
    assert rows_of_all(project) == before
    (project.work / "registered.json").unlink()
    read = once_more(project, dry_run=dry_run)
    assert read.as_before is None
    assert (read.unchanged, read.new, read.changed, read.notes) == (
        found.unchanged,
        found.new,
        found.changed,
        found.notes,
    )


def test_a_first_registration_is_enough_where_the_files_are_old(tmp_path: Path) -> None:
    made = make_project(tmp_path / "toy", ROWS[:1])
    write_sheet(made.root, ROWS)
    settle(made)
    assert register(made, sheet(made)).new["assay"] == ["A2", "A3"]
    found = once_more(made)
    assert (found.as_before is not None, found.unchanged) == (True, UNCHANGED)


def test_a_patient_that_is_only_implied_is_counted_as_ever(project: Project) -> None:
    (project.root / "sheet.csv").write_text("specimen_id,assay_id,reads\nS1,A1,reads/A1.txt\nS3,A4,reads/A2.txt\n")
    (project.root / "reads" / "A2.txt").rename(project.root / "reads" / "A4.txt")
    sheet(project).write_text("specimen_id,assay_id,reads\nS1,A1,reads/A1.txt\nS3,A4,reads/A4.txt\n")
    once_more(project)
    quick = once_more(project, dry_run=True)
    (project.work / "registered.json").unlink()
    assert once_more(project).unchanged == quick.unchanged == {"patient": 1, "specimen": 2, "assay": 2}


def changed_sheet(project: Project) -> None:
    write_sheet(project.root, [*ROWS[:2], {**ROWS[2], "site": "blood"}])


def changed_schema(project: Project) -> None:
    (project.root / "ct.toml").write_text(TOML.replace("site = {}", 'site = { default = "blood" }'))


def touched_file(project: Project) -> None:
    os.utime(project.root / "reads" / "A2.txt", (1, 1))


def other_inode(project: Project) -> None:
    path = project.root / "reads" / "A2.txt"
    shutil.copy2(path, path.with_name("other"))
    path.with_name("other").rename(path)


def edited_file_row(project: Project) -> None:
    with project.catalog.write() as writer:
        writer.execute(update(file).where(file.c.size > 0).values(digest="0" * 64))


def file_with_a_problem(project: Project) -> None:
    with project.catalog.write() as writer:
        writer.execute(update(file).values(problem="reads/A1.txt: gone"))


def damaged_memory(project: Project) -> None:
    (project.work / "registered.json").write_text("[]")


def other_code(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctcore.intake.unchanged, "_code", lambda: "another")


def other_home(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(project.root))


@both
@pytest.mark.parametrize(
    "change",
    [changed_sheet, changed_schema, touched_file, other_inode, edited_file_row, file_with_a_problem, damaged_memory],
)
def test_it_is_read_again_where_something_changed(project: Project, change: Callable[[Project], None]) -> None:
    change(project)
    assert once_more(project).as_before is None


@pytest.mark.parametrize("change", [other_code, other_home])
def test_it_is_read_again_by_other_code_or_with_another_home(
    project: Project, monkeypatch: pytest.MonkeyPatch, change: Callable[[Project, pytest.MonkeyPatch], None]
) -> None:
    change(project, monkeypatch)
    assert once_more(project).as_before is None
    assert once_more(project).as_before is not None


def test_it_is_read_again_where_it_is_to_be_read_in_another_way(project: Project) -> None:
    ignoring = Options(ignore=("library",))
    assert once_more(project, options=ignoring).as_before is None
    assert once_more(project, options=ignoring).as_before is not None
    assert once_more(project).as_before is None


def test_what_is_allowed_is_checked_as_ever(project: Project) -> None:
    with pytest.raises(Usage, match="no such specimen or assay"):
        once_more(project, allowed=AllowedChanges(reparent=frozenset(["S9"])))


def test_a_just_written_file_is_read_again(project: Project) -> None:
    path = project.root / "reads" / "A2.txt"
    path.write_text("reads of XX\n")
    now = path.stat().st_mtime_ns
    once_more(project)
    path.write_text("reads of YY\n")
    os.utime(path, ns=(now, now))
    assert once_more(project).changed["assay"] == {"A2": ["reads other content"]}


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_file_that_is_gone_or_empty_is_told_as_ever(project: Project, spoil: Callable[[Path], None]) -> None:
    spoil(project.root / "reads" / "A2.txt")
    with pytest.raises(SheetError, match=r"row 3, column reads: 'reads/A2.txt' is (not there|empty)"):
        once_more(project)


@both
def test_a_patient_removed_by_another_process_comes_back(project: Project) -> None:
    with again(project).catalog.write() as writer:
        for names in (["A3"], ["S2"], ["P2"]):
            gone = select(entity.c.seq).where(entity.c.id.in_(names))
            writer.execute(delete(file).where(file.c.entity.in_(gone)))
            writer.execute(delete(entity).where(entity.c.id.in_(names)))
    assert once_more(project).new == {"patient": ["P2"], "specimen": ["S2"], "assay": ["A3"]}


@both
def test_a_value_that_was_changed_behind_it_contradicts_as_ever(project: Project) -> None:
    with again(project).catalog.write() as writer:
        writer.execute(update(entity).where(entity.c.id == "P1").values(attributes='{"age":40,"sex":"M"}'))
    with pytest.raises(SheetError, match="P1 has 'M' in the catalog and 'F' here"):
        once_more(project)


def test_without_enforcement_the_sheet_is_read_again(project: Project) -> None:
    with sqlite3.connect(project.root / "catalog.db") as connection:
        connection.execute("DELETE FROM setting WHERE name = 'schema'")
    assert once_more(project).as_before is None


def test_a_moved_project_is_read_again(project: Project, tmp_path: Path) -> None:
    project.root.rename(tmp_path / "moved")
    moved = Project.find(tmp_path / "moved")
    found = register(moved, sheet(moved))
    assert (found.as_before, found.unchanged) == (None, UNCHANGED)


def test_the_same_bytes_in_another_folder_are_another_sheet(project: Project) -> None:
    other = project.root / "other"
    other.mkdir()
    shutil.copy2(sheet(project), other)
    with pytest.raises(SheetError, match="is not there"):
        register(again(project), other / "sheet.csv")


def test_the_last_sheet_is_the_one_that_was_said_last(project: Project) -> None:
    other = project.root / "other.csv"
    shutil.copy2(sheet(project), other)
    register(again(project), other)
    assert known_sheet(again(project)) == other
    kept = (project.work / "registered.json").read_text()
    once_more(project)
    assert known_sheet(again(project)) == sheet(project)
    (project.work / "registered.json").write_text(kept)
    assert register(again(project), other).as_before is not None
    assert known_sheet(again(project)) == other


def test_an_unread_sheet_says_so_and_references_are_looked_at(project: Project) -> None:
    assert ct("-C", project.root, "register", sheet(project)).code == 0
    said = ct("-C", project.root, "register", sheet(project))
    assert "not read again: sheet, ct.toml, catalog and 3 raw files (by size and time) are as they were at " in said.err
    assert said.out.splitlines()[1:] == ["patient\t0\t0\t2", "specimen\t0\t0\t2", "assay\t0\t0\t3"]
    (project.root / "genome.txt").write_text("ACGTA\n")
    told = json.loads(ct("-C", project.root, "register", sheet(project), "--json").out)
    assert (told["as_before"][1], told["unchanged"]) == (3, UNCHANGED)
    with again(project).catalog.read() as connection:
        last = connection.execute(select(event.c.kind).order_by(event.c.seq.desc())).scalar()
    assert last == "reference"
