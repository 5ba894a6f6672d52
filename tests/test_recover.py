"""`ct recover`: a lost catalog again, from provenance.jsonl and the store; and what it refuses."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from ctcore.agreement import NOT_TOLD
from ctcore.catalog.engine import Catalog
from ctcore.catalog.tables import metadata
from ctcore.project import Project
from ctcore.register import register
from ctcore.staleness import evaluate
from tests.kit import again, assay, make_all, make_project, write_sheet
from tests.shell import ct
from tests.test_hand_edits import LOOKED, everything

KEPT = [name for name in metadata.tables if name not in NOT_TOLD] + ["event"]


def facts(project: Project) -> dict[str, list[tuple[Any, ...]]]:
    """All rows, without when something was last looked at."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    with project.catalog.read() as connection:
        for name in KEPT:
            table = metadata.tables[name]
            columns = [column for column in table.columns if column.name not in LOOKED.get(name, ())]
            chosen = select(*columns).order_by(*table.primary_key)
            if name == "setting":  # which sheet was registered last is asked again
                chosen = chosen.where(table.c.name.in_(("schema", "analyses")))
            found[name] = [tuple(row) for row in connection.execute(chosen)]
    return found


def lose(project: Project) -> Project:
    """The database is gone; the journal and the store are there."""
    project.catalog.engine.dispose()
    if project.catalog.is_sqlite:
        for path in project.root.glob("catalog.db*"):
            path.unlink()
    else:
        with project.catalog.engine.connect() as connection, connection.begin():
            connection.execute(text(f'DROP SCHEMA "{project.catalog.schema}" CASCADE'))
        project.catalog.engine.dispose()
    return again(project)


def test_a_lost_catalog_is_made_again_from_the_journal_and_the_store(tmp_path: Path, catalog_url: str) -> None:
    project = everything(make_project(tmp_path / "toy"), purged=False)
    before, verdicts = facts(project), evaluate(project).totals
    journal = (project.root / "provenance.jsonl").read_bytes()
    lost = lose(project)
    said = ct("-C", lost.root, "status")
    assert said.code == 1 and "`ct recover` makes a lost one again" in said.err
    said = ct("-C", lost.root, "recover")
    assert said.code == 0 and "6 makings" in said.err, said
    after = facts(again(lost))
    assert after["event"].pop()[3] == "recover"
    assert after == before and evaluate(again(lost)).totals == verdicts
    assert (lost.root / "provenance.jsonl").read_bytes().startswith(journal)
    assert ct("-C", lost.root, "recover").code == 2, "it is not lost any more"


def test_after_it_the_cohort_goes_on_as_before(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    lost = lose(project)
    assert ct("-C", lost.root, "recover").code == 0
    lost = again(lost)
    assert set(make_all(lost).values()) == set(), "nothing is made again"
    register(lost, write_sheet(lost.root, [assay("P3", "S3", "A9", sex="F", age="9")]))
    assert set(make_all(again(lost)).values()) == {"made"}
    said = ct("-C", lost.root, "verify")
    assert said.code == 0, said


def test_what_has_no_files_any_more_is_named_and_the_rest_comes_back(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    (folder,) = (project.store.root / "merged/S1").iterdir()
    folder.chmod(0o755)
    shutil.rmtree(folder)
    said = ct("-C", lose(project).root, "recover")
    assert said.code == 3 and "merged/S1\tits files are gone" in said.out and "5 makings" in said.err, said
    assert evaluate(again(project)).of("merged", "S1").state == "missing"


@pytest.mark.parametrize("how", ["gone", "edited", "cut"])
def test_a_journal_that_is_not_whole_is_refused_and_nothing_is_written(tmp_path: Path, how: str) -> None:
    lost = lose(make_project(tmp_path / "toy"))
    path = lost.root / "provenance.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(b"".join([lines[0].replace(b"P1", b"P9"), *lines[1:]] if how == "edited" else lines[1:]))
    said = ct("-C", lost.root, "recover")
    assert said.code in (1, 2) and ("line 1" in said.err or "is not there" in said.err), said
    opened = Catalog(f"sqlite:///{lost.root / 'catalog.db'}", "toy", path)
    with opened.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM event")).scalar() == 0
