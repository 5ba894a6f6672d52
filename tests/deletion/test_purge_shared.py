"""Purging one of several people who share a raw file: what is made of it goes, the file stays for the others."""

from pathlib import Path

import pytest

from ctcore.deletion.proof import check
from ctcore.deletion.purge import remove
from ctcore.deletion.purge_plan import plan
from ctcore.intake.register import register
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import MORE, STEPS, add, assay, make_all, reasons, write_sheet
from tests.helpers.purging import revoke
from tests.helpers.sharing import POOL, ROWS, shared_project


@pytest.fixture
def project(tmp_path: Path, catalog_url: str) -> Project:
    """Everything made."""
    found = shared_project(tmp_path / "toy", STEPS + MORE)
    make_all(found)
    return found


def nodes(project: Project) -> set[str]:
    """Nodes with something in the store."""
    return {"/".join(path.parts[-3:-1]) for path in project.store.root.glob("[!.]*/*/*") if path.is_dir()}


def raw_row(project: Project, patient: str, raw: bool) -> tuple[str, str]:
    return next((row.action, row.why) for row in plan(project, patient, raw).rows if row.what == POOL)


def test_all_that_is_made_of_the_shared_file_goes(project: Project) -> None:
    revoke(project, "P2")
    again = {row.what: row.why for row in plan(project, "P2").rows if row.action == "make again"}
    freely = "without the patient, by `ct run`"
    barred = f"{freely}, once what it is made of may be used without them: `ct why` says what bars it"
    assert again["counted/A2"] == barred and again["joined/all"] == freely
    remove(project, "P2", "letter of 3 May", "P2")
    assert {one for one in nodes(project) if one.startswith("counted/")} == {"counted/A1", "counted/A4"}
    assert not nodes(project) & {"merged/S1", "merged/S2", "joined/all", "doubled/A2"}
    assert (project.root / POOL).is_file() and check(project, 1).findings == ()
    make_all(project)
    assert reasons(project) == {} and "counted/A2" not in nodes(project) and "joined/all" in nodes(project)
    assert check(project, 1).findings == ()


def test_a_file_of_others_stays_and_they_are_named(project: Project) -> None:
    revoke(project, "P2")
    others = "contains the patient, and is the reads of assay/A2 too, so it stays"
    way = "register each of them with a file without the patient, then --raw removes it"
    for raw in (False, True):
        assert raw_row(project, "P2", raw) == ("name", f"raw file inside the project; {others}; {way}")
    remove(project, "P2", "letter of 3 May", "P2", raw=True)
    assert (project.root / POOL).is_file() and not (project.root / "reads/A3.txt").exists()
    assert check(project, 1).findings == ((POOL, f"{others}; {way}"),)


def test_it_goes_once_the_others_have_files_of_their_own(project: Project) -> None:
    revoke(project, "P2")
    remove(project, "P2", "letter of 3 May", "P2", raw=True)
    register(project, write_sheet(project.root, [assay("P1", "S1", "A2")]))
    assert raw_row(project, "P2", True)[0] == "remove"
    remove(project, "P2", "letter of 3 May", "P2", raw=True)
    assert not (project.root / POOL).exists()
    make_all(project)
    assert reasons(project) == {} and evaluate(project).of("counted", "A2").state == "fresh"
    assert check(project, 1).findings == () and check(project, 2).findings == ()


def test_others_without_consent_are_counted_and_not_named(project: Project) -> None:
    revoke(project, "P1")
    revoke(project, "P2")
    assert "is the reads of 1 × somebody who may not be used too" in raw_row(project, "P2", True)[1]


def test_the_last_one_who_shared_takes_the_file_along(project: Project) -> None:
    for patient in ("P1", "P2"):
        revoke(project, patient)
        remove(project, patient, "letter of 3 May", patient, raw=True)
    assert not (project.root / POOL).exists()
    assert check(project, 1).findings == () and check(project, 2).findings == ()


def test_what_was_made_before_somebody_came_to_share_goes_too(project: Project) -> None:
    add(project, [*ROWS, assay("P3", "S3", "A5", reads=POOL)])
    revoke(project, "P3")
    remove(project, "P3", "letter of 3 May", "P3")
    assert {one for one in nodes(project) if one.startswith("counted/")} == {"counted/A1"}
