"""A raw file of several assays is looked at, read, verified and found as one file of all of them."""

from pathlib import Path

import pytest
from blake3 import blake3
from sqlalchemy import select

from ctcore.catalog.tables import entity, file
from ctcore.errors import SheetError
from ctcore.inputs.current import forget
from ctcore.intake.raw_files import look, look_on, read_raw
from ctcore.intake.register import register
from ctcore.project import Project
from ctcore.sheet.options import Options
from tests.helpers.kit import again, assay, make_all, reasons, write_sheet
from tests.helpers.sharing import POOL, ROWS, shared_project
from tests.helpers.shell import ct


@pytest.fixture
def project(tmp_path: Path, catalog_url: str) -> Project:
    """Everything made."""
    found = shared_project(tmp_path / "toy")
    make_all(found)
    return found


def digests(project: Project) -> dict[str, str]:
    with project.catalog.read() as connection:
        rows = connection.execute(select(entity.c.id, file.c.digest).join(file, file.c.entity == entity.c.seq))
        return {row.id: row.digest for row in rows}


def stale(project: Project) -> list[str]:
    return sorted(node for node, kinds in reasons(project).items() if "input" in kinds)


def test_a_look_at_some_assays_tells_all_who_share(project: Project) -> None:
    """Two states of one file would be two verdicts on the same bytes."""
    (project.root / POOL).write_text("other reads\n")
    changes, after = look_on(project, 0, 1)
    while after and not changes.changes:
        changes, after = look_on(project, after, 1)
    assert [one.split()[0] for one in changes.changes] == ["assay/A2", "assay/A3"]
    assert len({digests(project)[name] for name in ("A2", "A3")}) == 1 and stale(project) == [
        "counted/A2",
        "counted/A3",
    ]


def test_a_missing_shared_file_is_told_of_all(project: Project) -> None:
    (project.root / POOL).unlink()
    problems = look(project).problems
    assert [one.partition(":")[0] for one in problems] == ["assay A2", "assay A3"] and all(
        POOL in one for one in problems
    )
    said = ct("-C", project.root, "verify")
    assert said.code == 3 and "assay A2" in said.out and "assay A3" in said.out


def test_rotten_bytes_are_found_in_all_who_share(project: Project) -> None:
    """They are of the same size."""
    place = project.root / POOL
    assert read_raw(project, [POOL]).changes == []
    place.write_text("reads of a pXXl\n")
    assert [one.split()[0] for one in read_raw(project, [POOL]).changes] == ["assay/A2", "assay/A3"]
    assert stale(project) == ["counted/A2", "counted/A3"]


def test_a_trace_of_the_file_names_all_who_share(project: Project) -> None:
    said = ct("-C", project.root, "trace", project.root / POOL)
    assert said.code == 0 and "assay/A2" in said.out and "assay/A3" in said.out


def test_a_new_process_knows_who_shares(project: Project) -> None:
    """From the snapshot on disk, and from the catalog."""
    for _ in range(2):
        forget()
        assert reasons(again(project)) == {}
    (project.root / POOL).write_text("other reads\n")
    look(project)
    forget()
    assert stale(again(project)) == ["counted/A2", "counted/A3"]


def test_a_file_given_to_one_more_has_one_content_for_all(project: Project) -> None:
    """It changed before anybody looked: the others' rows are of before."""
    (project.root / POOL).write_text("other reads\n")
    register(project, write_sheet(project.root, [assay("P3", "S3", "A5", reads=POOL)]))
    look(project)
    assert {digests(project)[name] for name in ("A2", "A3", "A5")} == {blake3(b"other reads\n").hexdigest()}
    assert stale(project) == ["counted/A2", "counted/A3"]


def test_a_line_of_a_checksum_list_is_of_all_who_share(tmp_path: Path) -> None:
    project = shared_project(tmp_path / "toy")
    listed = project.root / "list.b3"
    listed.write_text(f"{blake3(b'reads of a pool').hexdigest()}  {POOL}\n")
    with pytest.raises(SheetError) as said:
        register(project, write_sheet(project.root, ROWS), options=Options(checksums=(listed,)))
    assert [one.partition(",")[0] for one in said.value.problems] == ["row 3", "row 4"]
    listed.write_text(f"{blake3(b'reads of a pool' + bytes([10])).hexdigest()}  {POOL}\n")
    notes = register(project, write_sheet(project.root, ROWS), options=Options(checksums=(listed,))).notes
    assert any("1 file of the sheet as it says" in one for one in notes)


def test_steps_get_the_file_by_its_path(project: Project) -> None:
    made = [path.read_text() for path in sorted((project.store.root / "counted").glob("A[23]/*/n.txt"))]
    assert made == ["15 ACGT\n", "15 ACGT\n"]
