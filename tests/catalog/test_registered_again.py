"""What the chain tells of somebody whose registration was lost counts again: at once of patients, and of what is below
them as soon as it is registered again."""

from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.registered_again import write_what_waited
from ctcore.catalog.tables import consent, entity, qc_act, qc_event, result
from ctcore.deletion.purge import remove
from ctcore.errors import SheetError
from ctcore.governance.consent import Record, Statement, restore, set_consent
from ctcore.intake.register import register
from ctcore.intake.results import ResultEntry, analysis_of, record
from ctcore.integrity.catalog_check import disagreements
from ctcore.integrity.recover import accept_loss, recover
from ctcore.project import Project
from ctcore.util.clock import today
from tests.helpers.kit import ROWS, TOML, again, fail, make_project, write_sheet

ANALYSIS = '\n[analyses.pathology]\nlevel = "assay"\ncolumns.said = {}\n'
REQUIRED = TOML.replace("sex = { enum", "sex = { required = true, enum")
SAID = select(qc_event.c.status, qc_act.c.at).select_from(qc_event.join(qc_act, qc_act.c.id == qc_event.c.act))


def rows(project: Project, statement: object) -> list[tuple[object, ...]]:
    with project.catalog.read() as connection:
        return [tuple(row) for row in connection.execute(statement)]  # type: ignore[call-overload]


def without_registrations(project: Project) -> None:
    """The catalog is lost, and so are the events that registered somebody; this was accepted."""
    project.catalog.engine.dispose()
    journal = project.root / "provenance.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if not ('"register"' in line and '"new"' in line)))
    for path in project.root.glob("catalog.db*"):
        path.unlink()
    recover(again(project))
    accept_loss(again(project), "looked")


def test_consents_and_qc_of_a_lost_registration_count_again(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", toml=REQUIRED)
    fail(project, "A3")
    set_consent(project, ["P2"], Statement("revoked", form="form 1"))
    before = rows(project, SAID)
    told = select(consent.c.status, consent.c.form, consent.c.at)
    consents = rows(project, told)
    without_registrations(project)
    project = again(project)
    assert rows(project, select(entity.c.id)) == [("P2",)] and rows(project, told) == consents
    assert rows(project, SAID) == [] == disagreements(project)
    register(project, write_sheet(project.root, ROWS))
    assert rows(project, SAID) == before and rows(project, told) == consents
    assert disagreements(project) == []
    with project.catalog.write() as writer:
        write_what_waited(writer, {"assay/A3", "patient/P2"})
    assert rows(project, SAID) == before, "once"


def test_who_was_purged_stays_so_where_the_registration_is_lost(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", toml=REQUIRED + ANALYSIS)
    record(project, analysis_of(project, "pathology"), [ResultEntry("A3", {"said": "wordy"})])
    set_consent(project, ["P2"], Statement("revoked", form="form 1"))
    remove(project, "P2", "asked", "P2")
    without_registrations(project)
    project = again(project)
    with pytest.raises(SheetError, match="was purged"):
        register(project, write_sheet(project.root, ROWS))
    register(project, write_sheet(project.root, ROWS[:2]))
    assert rows(project, select(entity.c.id).where(entity.c.purged == 1)) == [("P2",)]
    assert disagreements(project) == [] == rows(project, select(result.c.id))
    restore(project, "P2", Record("board", "1", today(), ("Ada", "Grace")))
    register(project, write_sheet(project.root, ROWS))
    assert disagreements(project) == [] == rows(project, select(entity.c.id).where(entity.c.purged == 1))
