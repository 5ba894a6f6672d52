"""Materializations of a history: right rows stay, others come from their sidecars, and a lost one is not made up."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import select, update

from ctcore.catalog.engine import Writer
from ctcore.catalog.replay import Event, Replay
from ctcore.catalog.tables import edge, event, materialization, metadata, output
from ctcore.errors import StoreError
from ctcore.integrity.catalog_check import compare_catalog
from ctcore.integrity.rebuild import makings, rewrite
from ctcore.project import Project
from tests.helpers.kit import make_all, make_project
from tests.helpers.purging import purge_patient


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_project(tmp_path_factory.mktemp("made") / "toy")
    make_all(project)
    project.catalog.engine.dispose()
    return project.root


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Project:
    shutil.copytree(made, tmp_path / "toy")
    return Project.find(tmp_path / "toy")


LOOKED = ("mtime_ns", "inode", "ctime_ns", "checked_at", "reported")  # when and where ct looked; no event says it


def replayed(project: Project) -> tuple[list[dict[str, object]], Replay]:
    with project.catalog.read() as connection:
        rows = [dict(row) for row in connection.execute(select(event).order_by(event.c.seq)).mappings()]
    told = (Event(*(row[name] for name in Event._fields)) for row in rows)
    return rows, Replay().take(told).without_orphans()


def content(connection: object, *names: str) -> dict[str, list[tuple[object, ...]]]:
    tables = [metadata.tables[name] for name in names]
    found = {}
    for table in tables:
        columns = [one for one in table.columns if one.name not in LOOKED]
        found[table.name] = sorted(map(tuple, connection.execute(select(*columns))), key=repr)  # type: ignore[attr-defined]
    return found


def test_right_rows_stay_and_need_no_store(project: Project) -> None:
    _, replay = replayed(project)
    shutil.rmtree(project.store.root)
    with project.catalog.read() as connection:
        found = makings(project, replay, connection)
    assert found.count == len(found.kept) == 6 and not found.found and not found.without


def test_without_rows_the_sidecars_tell(project: Project) -> None:
    _, replay = replayed(project)
    found = makings(project, replay, None)
    assert not found.kept and [one["id"] for one in found.found] == list(range(1, 7)) and not found.without


def test_a_missing_store_is_an_error_with_the_way_out(project: Project) -> None:
    _, replay = replayed(project)
    shutil.rmtree(project.store.root)
    with pytest.raises(
        StoreError, match=r"the store .* is missing, and recovery needs its sidecars.*`ct recover`"
    ) as error:
        makings(project, replay, None)
    assert error.value.exit_code == 3


def test_a_making_without_files_is_lost_and_not_made_up(project: Project) -> None:
    _, replay = replayed(project)
    shutil.rmtree(project.root / "store/merged/S2", ignore_errors=True)
    assert not (project.root / "store/merged/S2").exists()
    found = makings(project, replay, None)
    assert [(one.row["asset"], one.row["partition"]) for one in found.lost.values()] == [("merged", "S2")]
    assert found.count == 5 and found.without == list(found.lost)


@pytest.mark.parametrize("purged", [False, True])
def test_tables_are_rewritten_as_the_history_says(project: Project, purged: bool) -> None:
    if purged:
        purge_patient(project, "P1")
    rows, replay = replayed(project)
    names = ("entity", "artifact", "materialization", "output", "edge", "member", "tombstone", "consent", "recipe")
    with project.catalog.exclusive() as connection:
        before = content(connection, *names)
        writer = Writer(connection, "ada")
        writer.overwrite()
        connection.execute(update(edge).values(version="f" * 64))
        connection.execute(update(output).values(size=1))
        connection.execute(update(materialization).where(materialization.c.id == 1).values(actor="eve"))
        assert compare_catalog(connection)
        rewrite(writer, rows, replay, makings(project, replay, connection))
        after = content(connection, *names)
        assert compare_catalog(connection) == []
        for name in set(names) - {"materialization", "recipe"}:
            assert after[name] == before[name], name
        connection.rollback()
