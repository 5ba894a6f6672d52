"""What the chain tells of somebody whose registration was lost counts again: at once of patients, and of what is below
them as soon as it is registered again."""

import json
from pathlib import Path

from sqlalchemy import select

from ctcore.catalog.registered_again import write_what_waited
from ctcore.catalog.tables import consent, entity, qc_act, qc_event
from ctcore.governance.consent import Statement, set_consent
from ctcore.intake.register import register
from ctcore.integrity.catalog_check import disagreements
from ctcore.integrity.recover import accept_loss, recover
from ctcore.project import Project
from tests.helpers.kit import ROWS, TOML, again, fail, make_project, write_sheet

REQUIRED = TOML.replace("sex = { enum", "sex = { required = true, enum")
SAID = select(qc_event.c.status, qc_act.c.at).select_from(qc_event.join(qc_act, qc_act.c.id == qc_event.c.act))


def rows(project: Project, statement: object) -> list[tuple[object, ...]]:
    with project.catalog.read() as connection:
        return [tuple(row) for row in connection.execute(statement)]  # type: ignore[call-overload]


def test_consents_and_qc_of_a_lost_registration_count_again(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", toml=REQUIRED)
    fail(project, "A3")
    set_consent(project, ["P2"], Statement("revoked", form="form 1"))
    before = rows(project, SAID)
    told = select(consent.c.status, consent.c.form, consent.c.at)
    consents = rows(project, told)
    project.catalog.engine.dispose()
    journal = project.root / "provenance.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if "new" not in json.loads(line)["body"]))
    for path in project.root.glob("catalog.db*"):
        path.unlink()
    recover(again(project))
    accept_loss(again(project), "looked")
    project = again(project)
    assert rows(project, select(entity.c.id)) == [("P2",)] and rows(project, told) == consents
    assert rows(project, SAID) == [] == disagreements(project)
    register(project, write_sheet(project.root, ROWS))
    assert rows(project, SAID) == before and rows(project, told) == consents
    assert disagreements(project) == []
    with project.catalog.write() as writer:
        write_what_waited(writer, {"assay/A3", "patient/P2"})
    assert rows(project, SAID) == before, "once"
