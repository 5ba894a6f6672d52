"""A sheet into the catalog, apart from the first look at the bytes of its raw files."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cohort import sheet_project
from benchmarks.digest import NO_B3SUM, b3sum
from benchmarks.measure import Measured, Row, Target, expect, timed
from ctcore.catalog.tables import entity, event, file, setting
from ctcore.intake.raw_files import Memory
from ctcore.intake.register import register
from ctcore.project import Project
from ctcore.sheet.parse import read_sheet
from ctcore.store.digest import digest_remembered

ASSAYS = (1_000, 10_000, 40_000)
QUICK = (50,)
SLOWER = 3.0
BASELINE = "sqlite3: the same rows"
WRITTEN = (entity, file, event, setting)


def measure(folder: Path, quick: bool) -> Iterator[Row]:
    for assays in QUICK if quick else ASSAYS:
        project, sheet = sheet_project(folder / str(assays), assays)
        yield from _one(project, sheet, f"{assays} assays, {2 * assays} files")


def _one(project: Project, sheet: Path, size: str) -> Iterator[Row]:
    claims = read_sheet(sheet, project.settings.levels).entities["assay"].values()
    paths = [claim.path for row in claims for claim in row.files.values()]
    yield _first_look(project, paths, size)
    read = timed(lambda: read_sheet(sheet, project.settings.levels))
    first = timed(lambda: register(project, sheet), times=1)
    expect("new assays", len(first.value.new["assay"]), len(read.value.entities["assay"]))
    bare, opened = _bulk_insert(project), timed(lambda: _open_each(paths))
    both = Measured(bare.seconds + opened.seconds, bare.cpu + opened.cpu, None)
    yield Row("register, of it reading the sheet", size, read)
    yield Row("register, sheet → catalog", size, first, BASELINE, bare, Target(SLOWER, "×"))
    yield Row("the same", size, first, f"{BASELINE}, and each file opened", both)
    again = timed(lambda: register(project, sheet))
    expect("changes of the same sheet", bool(again.value), False)
    yield Row("register the same again", size, again, BASELINE, bare, Target(SLOWER, "×"))


def _first_look(project: Project, paths: list[Path], size: str) -> Row:
    """Digests of all raw files, remembered in the catalog: what registering does first, where it was not done yet."""
    theirs = b3sum(paths, project.root)
    mine = timed(lambda: digest_remembered(paths, Memory(project)), times=1)
    what = "register, first look at the bytes"
    if theirs is None:
        return Row(what, size, mine, NO_B3SUM)
    expect("digests", {str(path): digest for path, (digest, _) in mine.value.items()}, theirs.value)
    return Row(what, size, mine, "b3sum", theirs)


def _open_each(paths: list[Path]) -> None:
    """What no sheet can be checked without: is each file there, and what it says it is?"""
    for path in map(str, paths):
        os.stat(path)
        with open(path, "rb") as stream:
            stream.read(2)


def _bulk_insert(project: Project) -> Measured:
    """What was written, in one transaction into the same tables of a fresh database with the same pragmas."""
    with project.catalog.read() as connection:
        rows = {table: [tuple(row) for row in connection.execute(table.select())] for table in WRITTEN}
        made = [
            row[0]
            for row in connection.exec_driver_sql(
                "SELECT sql FROM sqlite_master WHERE sql NOT NULL AND name NOT LIKE 'declared!_%' ESCAPE '!'"
            )
        ]
        names = ("journal_mode", "foreign_keys", "synchronous", "temp_store", "cache_size")
        pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}
    place = project.root / "bare.db"

    def fresh() -> sqlite3.Connection:
        for old in project.root.glob("bare.db*"):
            old.unlink()
        bare = sqlite3.connect(place, isolation_level=None)
        for statement in (*(f"PRAGMA {name}={value}" for name, value in pragmas.items()), *made):
            bare.execute(statement)
        return bare

    return timed(lambda bare: _insert(bare, rows), before=fresh)


def _insert(bare: sqlite3.Connection, rows: dict[Any, list[tuple[Any, ...]]]) -> None:
    bare.execute("BEGIN IMMEDIATE")
    for table, some in rows.items():
        marks = ",".join("?" * len(table.columns))
        bare.executemany(f"INSERT INTO {table.name} VALUES ({marks})", some)
    bare.execute("COMMIT")
    bare.close()
