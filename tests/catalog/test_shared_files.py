"""Who shares a raw file, and who once did, by the events of registering."""

from pathlib import Path

import pytest

from ctcore.catalog.shared_files import SharedFile, ever_shared, makings_of_shared
from ctcore.intake.raw_files import look
from ctcore.intake.register import register
from ctcore.project import Project
from tests.helpers.kit import ROWS as PLAIN
from tests.helpers.kit import again, assay, make_all, make_project, write_sheet
from tests.helpers.sharing import POOL, SHARED, shared_project


@pytest.fixture
def project(tmp_path: Path, catalog_url: str) -> Project:
    return shared_project(tmp_path / "toy")


def shared(project: Project) -> list[SharedFile]:
    with project.catalog.read() as connection:
        return ever_shared(connection)


def give(project: Project, name: str, reads: str) -> None:
    """Give an assay another file, or a new assay a file."""
    patient, specimen = {"A2": ("P1", "S1")}.get(name, ("P3", "S3"))
    register(project, write_sheet(project.root, [assay(patient, specimen, name, reads=reads)]))


def test_each_content_has_those_who_had_it_together(project: Project) -> None:
    (first,) = shared(project)
    assert (first.level, first.role, first.owners) == ("assay", "reads", {"A2", "A3"})
    (project.root / POOL).write_text("other reads\n")
    look(project)
    give(project, "A2", "reads/A2.txt")
    give(project, "A5", POOL)
    listed = {one.version == first.version: one.owners for one in shared(project)}
    assert listed == {True: {"A2", "A3"}, False: {"A2", "A3", "A5"}}, "A5 never had the first content"


def test_a_path_that_others_had_before_is_shared_by_nobody(project: Project) -> None:
    give(project, "A2", "reads/A2.txt")
    give(project, "A4", "reads/new.txt")
    (project.root / "reads/A4.txt").write_text("reads of A6\n")
    give(project, "A6", "reads/A4.txt")
    assert [one.owners for one in shared(project)] == [{"A2", "A3"}]


def test_makings_of_a_shared_file_are_those_that_used_it(project: Project) -> None:
    make_all(project)
    give(project, "A5", POOL)
    with project.catalog.read() as connection:
        (one,) = ever_shared(connection)
        assert one.owners == {"A2", "A3", "A5"} and len(makings_of_shared(connection, [one])) == 2
        assert makings_of_shared(connection, []) == set()


def test_without_a_declaration_nothing_was_ever_shared(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", PLAIN)
    swapped = [assay("P1", "S1", "A1", reads="reads/A2.txt"), assay("P1", "S1", "A2", reads="reads/A1.txt")]
    register(project, write_sheet(project.root, swapped))
    assert shared(project) == []
    (project.root / "ct.toml").write_text(SHARED)
    register(again(project), project.root / "sheet.csv")
    assert [one.owners for one in shared(project)] == [{"A1", "A2"}] * 2, "the bytes of one were those of the other"
