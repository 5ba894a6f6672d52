"""A ledger that differs from a purge's event is found, and written again as the event says."""

import pytest
from sqlalchemy import delete, select, update

from ctcore.catalog.engine import Writer
from ctcore.catalog.tables import edge, materialization, output, tombstone
from ctcore.deletion.tombstone_check import differing_tombstones, rewrite_from_events, tombstones_of
from ctcore.project import Project
from tests.helpers.kit import make_all, make_project
from tests.helpers.purging import purge_patient


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = make_project(tmp_path_factory.mktemp("stones") / "toy")
    make_all(project)
    purge_patient(project, "P1")
    return project


@pytest.mark.parametrize(
    "harm",
    [
        update(materialization).values(seconds=1e6),
        update(output).values(size=1),
        update(output).values(digest="f" * 64),
        delete(output),
        update(edge).values(version="f" * 64),
        delete(edge),
    ],
    ids=str,
)
def test_any_other_row_is_found_and_written_again(project: Project, harm: object) -> None:
    with project.catalog.exclusive() as connection:
        gone = set(connection.execute(select(tombstone.c.materialization)).scalars())
        assert gone == set(tombstones_of(connection)) and not differing_tombstones(connection, gone)
        writer = Writer(connection, "ada")
        writer.overwrite()
        connection.execute(harm)  # type: ignore[call-overload]
        found = differing_tombstones(connection, gone)
        assert found
        rewrite_from_events(writer, found)
        assert not differing_tombstones(connection, gone)
        connection.rollback()


def test_a_making_without_a_tombstone_is_not_compared(project: Project) -> None:
    with project.catalog.exclusive() as connection:
        every = set(connection.execute(select(materialization.c.id)).scalars())
        gone = set(connection.execute(select(tombstone.c.materialization)).scalars())
        Writer(connection, "ada").overwrite()
        connection.execute(update(output).where(output.c.materialization.not_in(gone)).values(size=1))
        assert every - gone and not differing_tombstones(connection, every)
        assert not differing_tombstones(connection, ())
        connection.rollback()
