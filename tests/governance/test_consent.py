"""Consent: tiers, dates, what a revocation reaches, and how one is reversed: on record, by two people."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from ctcore.catalog.tables import event
from ctcore.errors import Usage
from ctcore.governance.access import GIVEN, current_consents, status_on
from ctcore.governance.consent import STATUSES, Record, Statement, current, history, restore, set_consent
from ctcore.governance.qc import Choice, QcEntry, add, resolve
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from ctcore.util.clock import today
from tests.helpers.kit import TOML, again, make_all, make_project, reasons
from tests.helpers.shell import ct

pytestmark = pytest.mark.usefixtures("catalog_url")
USES = '\n[consent]\nuses = ["research", "commerce"]\nuse = "research"\n'
DECISION = Record("ethics committee of the clinic", "2026/114", "2024-02-03", ("Ada", "Grace"))
REVOKED = Statement("revoked", dated="2024-01-20", form="withdrawal form 12")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two patients, three assays, everything made; consent may be limited to research or commerce."""
    made = make_project(tmp_path / "toy", toml=TOML + USES)
    make_all(made)
    return made


def tiers(project: Project) -> dict[str, str]:
    return {one["patient"]: one["status"] for one in current(project)}


def usable(project: Project, who: str = "A3") -> bool:
    return evaluate(project).of("counted", who).state != "excluded"


@pytest.mark.parametrize("status", STATUSES)
def test_only_consent_that_is_given_lets_a_patient_be_used(project: Project, status: str) -> None:
    uses = ("research",) if status == "limited" else ()
    set_consent(project, ["P2"], Statement(status, uses, form="form 1"))
    assert usable(project) == (status in GIVEN)
    assert tiers(project) == {"P2": status}


def test_an_ended_consent_is_expired_without_an_event(project: Project) -> None:
    set_consent(project, ["P2"], Statement("full", dated="2020-01-01", until="2021-01-01"))
    assert tiers(project) == {"P2": "expired"} and not usable(project)
    assert history(project, "P2")[0]["status"] == "full", "what was said stays as it was said"
    set_consent(project, ["P2"], Statement("full", until="2999-01-01", form="form 8"))
    assert usable(project) and reasons(project) == {}


def test_consent_holds_until_the_day_before_its_end(project: Project) -> None:
    set_consent(project, ["P2"], Statement("full", until="2030-02-01"))
    with project.catalog.read() as connection:
        row = current_consents(connection)[0]
    assert [status_on(row, day) for day in ("2030-01-31", "2030-02-01")] == ["full", "expired"]


def test_a_revocation_is_not_undone_by_saying_something_else(project: Project) -> None:
    set_consent(project, ["P2"], REVOKED)
    for status, uses in (("full", ()), ("limited", ("research",)), ("pending", ()), ("expired", ())):
        with pytest.raises(Usage, match=r"patient P2: consent was revoked on 2024-01-20; `ct consent restore P2`"):
            set_consent(project, ["P2"], Statement(status, uses))
    set_consent(project, ["P2"], Statement("withdrawn", form="letter"))
    assert not usable(project)


def test_qc_says_nothing_about_consent(project: Project) -> None:
    set_consent(project, ["P2"], REVOKED)
    with pytest.raises(Usage, match="no kind 'consent_revoked'"):
        add(project, [QcEntry("patient", "P2", "consent_revoked", "x")])
    with pytest.raises(Usage, match="nothing to resolve"):
        resolve(project, Choice(entity=("patient", "P2")), "IRB 2024-01-01")
    assert not usable(project)


def test_restoring_gives_back_tier_limits_and_end(project: Project) -> None:
    set_consent(project, ["P2"], Statement("limited", ("commerce",), until="2999-01-01", form="form 4"))
    before = reasons(project)
    set_consent(project, ["P2"], REVOKED)
    set_consent(project, ["P2"], Statement("withdrawn", form="letter"))
    restore(project, "P2", replace(DECISION, dated=today()))
    now = current(project)[0]
    assert (now["status"], now["uses"], now["until"], now["form"]) == ("limited", ["commerce"], "2999-01-01", "form 4")
    assert now["record"]["authority"] == "ethics committee of the clinic"
    assert now["record"]["confirmed_by"] == ["Ada", "Grace"]
    assert reasons(project) == before


def test_restoring_makes_true_again_without_a_run(project: Project) -> None:
    set_consent(project, ["P2"], REVOKED)
    assert reasons(project) == {"joined/all": ["member-removed"]}
    restore(project, "P2", DECISION)
    assert reasons(project) == {} == reasons(again(project)) and make_all(project) == {}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (Record(" ", "7", "2024-02-03", ("Ada", "Grace")), "--authority"),
        (Record("IRB", "", "2024-02-03", ("Ada", "Grace")), "--reference"),
        (Record("oops 2024-01-01", "7", "yesterday", ("Ada", "Grace")), "'yesterday' is no day"),
        (Record("IRB", "7", "2999-01-01", ("Ada", "Grace")), "lies in the future"),
        (Record("IRB", "7", "2024-02-03", ("Ada",)), "two different names"),
        (Record("IRB", "7", "2024-02-03", ("Ada", " ada ")), "two different names"),
        (Record("IRB", "7", "2023-12-31", ("Ada", "Grace")), "older than what it reverses"),
    ],
)
def test_a_reversal_without_a_whole_record_is_refused(project: Project, record: Record, words: str) -> None:
    set_consent(project, ["P2"], REVOKED)
    with pytest.raises(Usage, match=words):
        restore(project, "P2", record)
    assert not usable(project) and tiers(project) == {"P2": "revoked"}


def test_there_is_nothing_to_restore_where_nothing_was_revoked(project: Project) -> None:
    for said in (None, Statement("pending")):
        if said is not None:
            set_consent(project, ["P2"], said)
        with pytest.raises(Usage, match="nothing to restore"):
            restore(project, "P2", DECISION)


def test_consent_is_written_of_all_or_of_none(project: Project) -> None:
    with pytest.raises(Usage) as caught:
        set_consent(project, ["P1", "P7", "P8"], Statement("limited", ("profit",), "2024-02-31", "2999-01-01"))
    for words in ("no patient 'P7'", "no patient 'P8'", "no use 'profit'", "'2024-02-31' is no day"):
        assert words in str(caught.value)
    assert current(project) == []
    set_consent(project, ["P1", "P2"], Statement("full"))
    assert tiers(project) == {"P1": "full", "P2": "full"}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Statement("limited"), "name the uses"),
        (Statement("full", ("research",)), "name the uses"),
        (Statement("revoked", until="2999-01-01", form="x"), "--until is for a consent that is given"),
        (Statement("revoked"), "where does it stand"),
        (Statement("revoked", dated="2999-01-01", form="x"), "lies in the future"),
        (Statement("granted"), "no consent 'granted'"),
    ],
)
def test_what_contradicts_itself_is_refused(project: Project, said: Statement, words: str) -> None:
    with pytest.raises(Usage, match=words):
        set_consent(project, ["P2"], said)
    assert current(project) == []


def test_the_command_line_sets_lists_and_restores(project: Project) -> None:
    at = ("-C", project.root, "consent")
    form = ("--form", "withdrawal form 12", "--date", "2024-01-20")
    assert ct(*at, "set", "patient/P2", "revoked", *form).code == 0
    assert "P2\trevoked\t\t2024-01-20" in ct(*at, "list").out
    told = ct("-C", project.root, "why", "counted/A3")
    assert told.code == 3 and "patient P2: consent revoked on 2024-01-20 (withdrawal form 12)" in told.out
    record = ("--authority", "IRB", "--reference", "7", "--date", "2024-02-03")
    assert ct(*at, "restore", "P2", *record, "--confirmed-by", "Ada").code == 2
    assert ct(*at, "restore", "P2", *record, "--confirmed-by", "Ada", "--confirmed-by", "Grace").code == 0
    found: list[dict[str, Any]] = json.loads(ct(*at, "history", "P2", "--json").out)
    assert [one["status"] for one in found] == ["revoked", "full"]
    with project.catalog.read() as connection:
        bodies = connection.execute(select(event.c.body).where(event.c.kind == "consent").order_by(event.c.seq))
        told_of = [json.loads(body)["consents"][0] for body in bodies.scalars()]
    assert [one["status"] for one in told_of] == ["revoked", "full"] and told_of[1]["record"]["reference"] == "7"


def tier(said: Statement) -> tuple[str, tuple[str, ...], str | None]:
    return said.status, tuple(sorted(said.uses)), said.until


GIVEN_OR_WAITING = st.one_of(
    st.builds(Statement, st.just("full"), until=st.sampled_from([None, "2999-01-01", "2020-01-01"])),
    st.builds(Statement, st.just("limited"), st.sampled_from([("research",), ("commerce",), ("commerce", "research")])),
    st.just(Statement("pending")),
)
TAKEN = st.builds(Statement, st.sampled_from(["revoked", "withdrawn"]), form=st.just("form"))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(GIVEN_OR_WAITING, min_size=1, max_size=3), taken=st.lists(TAKEN, min_size=1, max_size=3))
def test_any_reversal_gives_back_the_last_tier(
    project: Project, before: list[Statement], taken: list[Statement]
) -> None:
    """One patient for all examples: each ends with the reversal, from which the next one goes on. The same status said
    again keeps its end, unless that has come."""
    known = history(project, "P1")
    last = tier(Statement(known[-1]["status"], tuple(known[-1]["uses"]), until=known[-1]["until"])) if known else None
    for said in before:
        status, uses, until = tier(said)
        kept = last[2] if last and last[0] == status and (last[2] or "") > today() else None
        last = status, uses, until or kept
    for said in (*before, *taken):
        set_consent(project, ["P1"], said)
    assert not usable(project, "A1")
    restore(project, "P1", Record("IRB", "7", today(), ("Ada", "Grace")))
    now = history(project, "P1")[-1]
    assert (now["status"], tuple(now["uses"]), now["until"]) == last


SHEET = """\
patient_id,status,uses,date,until,form
P1,limited,research; commerce,2024-01-01,2999-01-01,form 4
P2,Full,,2024-01-01,,form 4
"""


def sheet(project: Project, text: str, name: str = "consents.csv") -> Path:
    path = project.root / name
    path.write_text(text)
    return path


def told(project: Project) -> int:
    with project.catalog.read() as connection:
        return len(connection.execute(select(event).where(event.c.kind == "consent")).all())


def test_a_repeated_consent_keeps_its_end_and_form(project: Project) -> None:
    set_consent(project, ["P1"], Statement("full", until="2099-01-01", form="form 4"))
    set_consent(project, ["P1"], Statement("full", form="form 5"))
    assert (current(project)[0]["until"], current(project)[0]["form"]) == ("2099-01-01", "form 5")
    before = told(project)
    set_consent(project, ["P1"], Statement("full"))
    assert told(project) == before, "nothing else was said"
    root = project.root
    ct("-C", root, "consent", "set", "--sheet", sheet(project, "patient,status,form\nP1,full,form 6\n"))
    assert (current(project)[0]["until"], current(project)[0]["form"]) == ("2099-01-01", "form 6")
    ct("-C", root, "consent", "set", "--sheet", sheet(project, "patient,status,until\nP1,full,\n"))
    assert (current(project)[0]["until"], current(project)[0]["form"]) == (None, "form 6")
    set_consent(project, ["P1"], Statement("full", until="2099-01-01"))
    assert ct("-C", root, "consent", "set", "P1", "full", "--until", "").code == 0
    assert current(project)[0]["until"] is None
    set_consent(project, ["P1"], Statement("pending"))
    assert current(project)[0]["form"] is None, "another status is another statement"


def test_a_sheet_sets_a_whole_cohort_and_repeats_nothing(project: Project) -> None:
    path = sheet(project, SHEET)
    said = ct("-C", project.root, "consent", "set", "--sheet", path)
    assert (said.code, tiers(project), told(project)) == (0, {"P1": "limited", "P2": "full"}, 1)
    assert current(project)[0]["uses"] == ["commerce", "research"]
    said = ct("-C", project.root, "consent", "set", "--sheet", path)
    assert "0 patients" in said.err and "2 stood already" in said.err
    assert len(history(project)) == 2 and told(project) == 1
    ct("-C", project.root, "consent", "set", "--sheet", sheet(project, SHEET.replace("Full", "pending")))
    assert tiers(project) == {"P1": "limited", "P2": "pending"} and len(history(project)) == 3


def test_a_workbook_says_the_same(project: Project) -> None:
    from openpyxl import Workbook

    book = Workbook()
    for line in SHEET.splitlines():
        book.active.append(line.split(","))
    book.save(project.root / "consents.xlsx")
    assert ct("-C", project.root, "consent", "set", "--sheet", project.root / "consents.xlsx").code == 0
    assert tiers(project) == {"P1": "limited", "P2": "full"}


def test_a_bad_consent_sheet_lists_all_problems_writes_nothing(project: Project) -> None:
    set_consent(project, ["P2"], REVOKED)
    before = history(project)
    wrong = """\
patient,status,uses,date,until
P1,limited,sale,2024-01-01,
P1,full,,2024-13-01,
P2,full,,,
P77,full,,,
P78,agreed,,,
"""
    said = ct("-C", project.root, "consent", "set", "--sheet", sheet(project, wrong))
    assert said.code == 1 and history(project) == before
    for words in (
        "row 2: no use 'sale'",
        "row 3: '2024-13-01' is no day",
        "row 3: patient P1 is in row 2 already",
        "row 4: patient P2: consent was revoked on 2024-01-20; `ct consent restore P2`",
        "row 5: no patient 'P77' is registered",
        "row 6: no consent 'agreed'",
        "row 6: no patient 'P78' is registered",
    ):
        assert words in said.err
    said = ct("-C", project.root, "consent", "set", "--sheet", sheet(project, "patient,statsu\nP1,full\n"))
    assert "row 1: no column status" in said.err and "did you mean 'status'?" in said.err
    said = ct("-C", project.root, "consent", "set", "--sheet", sheet(project, "patient,status\nP1,\n,full\nP77,full\n"))
    told = ("row 2: column status is blank", "row 3: column patient is blank", "row 4: no patient 'P77'")
    assert all(words in said.err for words in told) and "3 problems" in said.err and history(project) == before


def test_with_required_consent_nobody_is_used_before_it(tmp_path: Path) -> None:
    toml = TOML + USES + "required = true\n"
    project = make_project(tmp_path / "required", toml=toml)
    assert [usable(project, who) for who in ("A1", "A3")] == [False, False]
    assert "consent: none on record" in ct("-C", project.root, "why", "counted/A1").out
    assert ct("-C", project.root, "run", "counted/A1").code == 2
    set_consent(project, ["P1"], Statement("full", form="form 1"))
    assert [usable(project, who) for who in ("A1", "A3")] == [True, False]
    asked = "left out: 1 patient (1 no consent on record), 1 specimen (1 no consent on record)"
    assert asked in ct("-C", project.root, "query", "SELECT 1").err
    set_consent(project, ["P2"], Statement("limited", ("research",)))
    assert usable(again(project)) and ct("-C", project.root, "query", "SELECT 1").err.startswith("left out: nothing")


def test_that_consent_is_required_from_now_on_counts_at_once(project: Project) -> None:
    assert usable(project)
    (project.root / "ct.toml").write_text(TOML + USES + "required = true\n")
    assert not usable(again(project)) and ct("-C", project.root, "show", "patient/P2").code == 2
    (project.root / "ct.toml").write_text(TOML + USES + 'required = "yes"\n')
    assert "[consent] required = 'yes': true or false" in ct("-C", project.root, "status").err


def test_a_consent_that_has_ended_already_is_said_to_be_expired(project: Project) -> None:
    root = project.root
    over = "--until 2020-01-01 is over: it is expired already, and nothing of theirs is used"
    assert over in ct("-C", root, "consent", "set", "P1", "full", "--until", "2020-01-01").err
    assert tiers(project)["P1"] == "expired"
    said = ct("-C", root, "consent", "set", "--sheet", sheet(project, "patient,status,until\nP2,full,2020-01-01\n"))
    assert "consent of 1 patient by" in said.err and "1 row of the sheet: until a day that is over" in said.err, said
    assert "is over" not in ct("-C", root, "consent", "set", "P2", "full", "--until", "2999-01-01").err


def test_a_limited_consent_without_a_use_names_those_there_are(project: Project) -> None:
    said = ct("-C", project.root, "consent", "set", "P1", "limited")
    assert said.code == 2 and "limited --use research; [consent] uses of ct.toml has: 'research'" in said.err, said


def test_a_patient_who_is_named_twice_is_one(project: Project) -> None:
    said = ct("-C", project.root, "consent", "set", "P2", "patient/P2", "revoked", "--form", "form 1")
    assert said.err.startswith("consent of patient P2: revoked"), said
    assert [row["status"] for row in history(project, "P2")] == ["revoked"]
