"""Purged content is known again by digests, except where somebody else has the same bytes."""

from pathlib import Path

from ctcore.deletion.purged_digests import PurgedContent, purged_content
from ctcore.lineage.containment import containment_of
from ctcore.project import Project
from ctcore.store.digest import digest_files
from tests.helpers.kit import ROWS, assay, make_all, make_project
from tests.helpers.purging import purge_patient, revoke

SAME = assay("P3", "S3", "A4", sex="F")


def content(project: Project, *going: int) -> PurgedContent:
    with project.catalog.read() as connection:
        return purged_content(project, connection, containment_of(project, connection, "P1"), "P1", going)


def same_reads(root: Path) -> Project:
    """A4 of P3 has the reads of A1 of P1, so that both give the same count."""
    (root / "reads").mkdir(parents=True)
    for name in ("A1", "A4"):
        (root / f"reads/{name}.txt").write_text("the same reads\n")
    (root / "reads/A2.txt").write_text("reads of another length\n")
    project = make_project(root, [*ROWS, SAME])
    make_all(project)
    return project


def test_what_others_have_too_proves_nothing(tmp_path: Path) -> None:
    project = same_reads(tmp_path / "toy")
    purge_patient(project, "P1")
    found = content(project)
    assert set(found.files.values()) == {"counted/A2 n.txt", "merged/S1 n.txt", "joined/all table.tsv"}
    assert set(found.raw.values()) == {"assay/A2 reads"}, "raw files stay, and are known where they lie"
    assert found.raw_paths == {str(project.root / f"reads/{name}.txt") for name in ("A1", "A2")}
    assert found.others_raw == {str(project.root / f"reads/{name}.txt") for name in ("A3", "A4")}
    assert found.largest == max(found.sizes) and found.ids == {"P1", "S1", "A1", "A2"}


def test_before_a_purge_only_what_is_going_is_known(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    revoke(project, "P1")
    assert not content(project).files and not content(project).beside
    with project.catalog.read() as connection:
        left = containment_of(project, connection, "P1").left
    found = content(project, *left)
    place = next((project.root / "store/merged/S1").rglob("n.txt"))
    assert found.description_of(digest_files([place])[place]) == "merged/S1 n.txt"
    assert found.description_of("f" * 64) is None


def test_sidecars_are_known_by_the_purges_event(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    places = [one for one in (project.root / "store/merged/S1").rglob("*") if one.is_file() and one.name != "n.txt"]
    digests = set(digest_files(places).values())
    assert digests
    purge_patient(project, "P1")
    found = content(project)
    assert digests <= found.beside.keys() and set(found.beside.values()) == {"a log, call or sidecar of patient/P1"}
