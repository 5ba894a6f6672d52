"""A tombstone keeps what the ledger knows of a purged making, and a making after it is no tombstone."""

import json
from types import SimpleNamespace

import pytest
from sqlalchemy import select

from ctcore.catalog.tables import event, materialization, purge
from ctcore.catalog.tombstones import (
    current_folders,
    edge_counts,
    entries,
    entry_from_event,
    folders_of,
    is_purged,
    purge_words,
    purge_words_by_making,
    purge_words_by_partition,
    unfinished_purges,
)
from ctcore.project import Project
from tests.helpers.kit import make_all, make_project
from tests.helpers.purging import purge_patient


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """P1 of two patients is purged; the cohort's result was made again since, without P1."""
    project = make_project(tmp_path_factory.mktemp("purged") / "toy")
    make_all(project)
    purge_patient(project, "P1")
    make_all(project)
    return project


def test_an_unfinished_purge_does_not_say_that_files_are_gone() -> None:
    row = SimpleNamespace(id=3, at="2026-05-03T10:00:00", ended_at=None)
    assert purge_words(row) == "being purged since 2026-05-03 (purge 3)"
    row.ended_at = "2026-05-04T10:00:00"
    assert purge_words(row) == "purged on 2026-05-04 (purge 3)"


def test_only_nodes_without_a_later_making_say_they_were_purged(project: Project) -> None:
    with project.catalog.read() as connection:
        gone = set(connection.execute(select(materialization.c.id).where(is_purged())).scalars())
        every = set(connection.execute(select(materialization.c.id)).scalars())
        assert gone == set(purge_words_by_making(connection, every)) and gone < every
        assert purge_words_by_partition(connection, "counted", ["A1", "A2", "A3"]).keys() == {"A1", "A2"}
        assert not purge_words_by_partition(connection, "joined", ["all"]), "it was made again"
        assert not unfinished_purges(connection)


def test_an_event_of_a_purge_restores_what_the_ledger_has(project: Project) -> None:
    with project.catalog.read() as connection:
        body = json.loads(connection.execute(select(event.c.body).where(event.c.kind == "purge")).scalar_one())
        assert body["removed"]
        for said in body["removed"]:
            number = said["materialization"]
            known, told = entries(connection, [number])[number], entry_from_event(said)
            assert told["folder"] == known["folder"] and told["data_version"] == known["data_version"]
            assert tuple(told["side"]["node"]) == tuple(known["side"]["node"])
            assert edge_counts(connection, [number])[number] == len(told["side"]["inputs"])
            assert {one["file"] for one in told["outputs"]} == set(said["files"])


def test_folders_of_tombstones_are_not_among_the_current_ones(project: Project) -> None:
    with project.catalog.read() as connection:
        gone, current = folders_of(connection, purge.c.patient == "P1"), current_folders(connection)
    assert len(gone) == 4 and not set(gone) & current.keys(), "two counts, a merge and the cohort's former result"
    assert not any((project.store.root / folder).exists() for folder in gone)
    for folder, files in current.items():
        assert all((project.store.root / folder / name).stat().st_size == size for name, (size, _) in files.items())
