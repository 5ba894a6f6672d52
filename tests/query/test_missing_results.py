"""`ct status STEP --missing`: who should have a step's result and has none, why, since when, and what to do."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import select, text

from ctcore.catalog.tables import consent, event, qc_act
from ctcore.governance.consent import Statement, set_consent
from ctcore.governance.masking import mask_of
from ctcore.governance.qc import QcEntry
from ctcore.governance.qc import add as add_qc
from ctcore.project import Project
from ctcore.query.missing_results import MissingResult, missing_results
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import ROWS, STEPS, TOML, add, again, assay, make_all, make_project
from tests.helpers.shell import ct, on_a_terminal

MORE = (*ROWS, assay("P3", "S3", "A4", sex="F", age="60"), assay("P4", "S4", "A5", sex="M", age="70"))
CONSENT = '\n[consent]\nuses = ["research", "care"]\n[consent.steps]\nmerged = "care"\njoined = "care"\n'
COLUMNS = ["state", "why", "since", "by", "next"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "toy", MORE, toml=TOML + CONSENT)


def _rows(project: Project, step: str) -> dict[str, MissingResult]:
    one = again(project)
    return {row.node[1]: row for row in missing_results(one, one.steps[step], mask_of(one)).rows}


def _tsv(root: Path, *arguments: str) -> tuple[int, list[list[str]]]:
    said = ct("-C", root, "status", *arguments)
    return said.code, [line.split("\t") for line in said.out.splitlines()]


def test_what_was_never_made_is_missing_since_the_sheet(project: Project) -> None:
    code, (head, *rows) = _tsv(project.root, "counted", "--missing")
    with project.catalog.read() as connection:
        registered = connection.execute(select(event.c.at, event.c.actor).where(event.c.kind == "register")).first()
    assert registered is not None
    assert (code, head) == (3, ["assay", *COLUMNS])
    assert rows == [
        [one, "missing", "never made", registered.at, registered.actor, f"ct run counted/{one}"]
        for one in ("A1", "A2", "A3", "A4", "A5")
    ]


def test_where_nothing_is_missing_there_is_no_row(project: Project) -> None:
    make_all(project)
    for step in ("counted", "merged", "joined"):
        code, rows = _tsv(project.root, step, "--missing")
        assert (code, len(rows)) == (0, 1)
    assert json.loads(ct("-C", project.root, "status", "merged", "--missing", "--json").out) == {
        "step": "merged",
        "level": "specimen",
        "missing": [],
    }


def test_an_exclusion_names_who_recorded_it_and_when(project: Project) -> None:
    make_all(project)
    add_qc(project, [QcEntry("specimen", "S3", "qc_fail", "bad gel")])
    set_consent(project, ["P4"], Statement("limited", uses=("research",), dated="2024-01-20", form="f"))
    with project.catalog.read() as connection:
        act = connection.execute(select(qc_act.c.at, qc_act.c.actor)).one()
        actor = connection.execute(select(consent.c.actor)).scalar_one()
    rows = _rows(project, "merged")
    assert [one.state for one in rows.values()] == ["excluded", "excluded"]
    assert (rows["S3"].since, rows["S3"].by, rows["S3"].next) == (*act, "ct qc history specimen/S3")
    assert "qc_fail" in rows["S3"].why and "bad gel" in rows["S3"].why
    assert (rows["S4"].since, rows["S4"].by, rows["S4"].next) == ("2024-01-20", actor, "ct consent history P4")
    assert rows["S4"].why.startswith("patient P4: consent is limited to research")


def test_who_is_without_consent_has_a_row_only_on_record(project: Project) -> None:
    make_all(project)
    set_consent(project, ["P4"], Statement("revoked", dated="2024-01-20", form="form 12"))
    said = ct("-C", project.root, "status", "merged", "--missing")
    assert (said.code, len(said.out.splitlines())) == (0, 1)
    assert "not shown, because without consent: 1 patient, 1 specimen, 1 assay" in said.err
    asked = ct("-C", project.root, "status", "merged", "--missing", "--excluded", "--reason", "audit 7")
    assert asked.code == 3 and asked.out.splitlines()[1].startswith("S4\texcluded\tpatient P4: consent revoked on")
    with project.catalog.read() as connection:
        last = connection.execute(select(event.c.kind, event.c.subject).order_by(event.c.seq.desc()).limit(1)).one()
    assert tuple(last) == ("disclose", "status merged --missing")


def test_who_lacks_an_input_is_told_so(project: Project) -> None:
    add(project, [*MORE, {**assay("P5", "S5", "A9", sex="F", age="1"), "reads": ""}])
    rows = _rows(project, "counted")
    assert (rows["A9"].state, rows["A9"].next) == ("excluded", "ct show assay/A9")
    assert rows["A9"].why == "missing: has not what counted needs (reads)"


def test_a_changed_file_is_since_when_it_was_seen(project: Project) -> None:
    make_all(project)
    (project.root / "reads/A1.txt").write_text("other reads\n")
    code, (_, row) = _tsv(project.root, "counted", "--missing")
    with project.catalog.read() as connection:
        seen = connection.execute(
            select(event.c.at, event.c.actor).where(event.c.kind == "file").order_by(event.c.seq.desc())
        ).first()
    assert seen is not None
    assert (code, row[:2], row[3:]) == (3, ["A1", "stale"], [*seen, "ct run counted/A1"])
    waiting = _rows(project, "joined")["all"]
    assert (waiting.since, waiting.by, waiting.next) == (*seen, "ct run joined/all")


def test_a_new_reference_is_since_its_version(project: Project) -> None:
    make_all(project)
    (project.root / "genome.txt").write_text("TTTT\n")
    code, (_, *rows) = _tsv(project.root, "counted", "--missing")
    with project.catalog.read() as connection:
        last = connection.execute(text("SELECT at, actor FROM reference_version ORDER BY number DESC")).first()
    assert code == 3 and last is not None
    assert [row[3:5] for row in rows] == [list(last)] * 5


def test_what_failed_says_its_error_and_where_to_look(project: Project) -> None:
    steps = project.root / "steps/toy.py"
    steps.write_text(STEPS.replace('return {"letters": n}', 'raise ValueError("no luck")'))
    make_all(again(project))
    rows = _rows(project, "counted")
    with project.catalog.read() as connection:
        mine = (event.c.kind == "fail") & (event.c.subject == "counted/A1")
        failed = connection.execute(select(event.c.at, event.c.actor).where(mine)).one()
    assert rows["A1"].state == "failed" and "no luck" in rows["A1"].why
    assert (rows["A1"].since, rows["A1"].by) == tuple(failed)
    assert ct("-C", project.root, *shlex.split(rows["A1"].next)[1:]).code in (0, 3)
    below = _rows(project, "merged")["S3"]
    assert below.state == "missing" and below.next == _rows(project, "counted")["A4"].next


def test_every_next_command_works(project: Project) -> None:
    make_all(project)
    add(project, [*MORE, {**assay("P5", "S5", "A9", sex="F", age="1"), "reads": ""}])
    add_qc(project, [QcEntry("specimen", "S3", "qc_fail", "bad gel")])
    set_consent(project, ["P4"], Statement("limited", uses=("research",), dated="2024-01-20", form="f"))
    (project.root / "reads/A1.txt").write_text("other reads\n")
    for step in ("counted", "merged", "joined"):
        for row in _rows(project, step).values():
            _, verb, *what = shlex.split(row.next)
            words = ("plan", "--select", *what) if verb == "run" else (verb, *what)  # a plan of it is enough
            assert ct("-C", project.root, *words).code in (0, 3), row.next


def test_a_cohort_narrows_who_is_asked_about(project: Project) -> None:
    toml = project.root / "ct.toml"
    women = '[cohorts.women]\nwhere = { "patient.sex" = "F" }\n'
    toml.write_text(toml.read_text().replace("[cohorts.all]", f"{women}\n[cohorts.all]"))
    code, (_, *rows) = _tsv(project.root, "merged", "--missing", "--cohort", "women")
    assert (code, [row[0] for row in rows]) == (3, ["S1", "S3"])


@pytest.mark.parametrize("call", [["merged"], ["--missing"]])
def test_missing_and_a_step_belong_together(project: Project, call: Sequence[str]) -> None:
    said = ct("-C", project.root, "status", *call)
    assert said.code == 2 and "`ct status STEP --missing`" in said.err and not said.out


def test_a_step_that_is_not_there_has_a_hint(project: Project) -> None:
    said = ct("-C", project.root, "status", "mergd", "--missing")
    assert said.code == 2 and "did you mean 'merged'?" in said.err


def test_on_a_terminal_it_is_a_table(project: Project) -> None:
    code, out = on_a_terminal("-C", project.root, "status", "counted", "--missing", columns=160)
    assert code == 3 and "\t" not in out and "never made" in out and "ct run counted/A1" in out


def test_statements_do_not_grow_with_the_cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def statements(root: Path, many: int) -> int:
        made = make_project(root, [assay(f"P{n}", f"S{n}", f"A{n}", sex="F", age="1") for n in range(many)])
        add_qc(made, [QcEntry("specimen", f"S{n}", "qc_fail", "bad gel") for n in range(0, many, 2)])
        said: list[str] = []
        evaluate(made)
        from sqlalchemy import event as listen

        listen.listen(made.catalog.engine, "before_cursor_execute", lambda *given: said.append(given[2]))
        found = missing_results(made, made.steps["merged"], mask_of(made))
        assert len(found.rows) == many
        return len(said)

    assert statements(tmp_path / "few", 4) == statements(tmp_path / "many", 40)
