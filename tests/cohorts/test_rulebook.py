"""Versions of a cohort's rule: when it changed, by which one an artifact was made, who came and went by it."""

import json
from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.tables import artifact, event, materialization
from ctcore.cohorts.rule_history import record_rules, rule_versions
from ctcore.governance.masking import UNMASKED
from ctcore.intake.raw_files import look
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import TOML, add, again, assay, fail, make_all, make_project, reasons
from tests.helpers.shell import ct

ROWS = [
    assay("P1", "S1", "A1", sex="F", age="16"),
    assay("P2", "S2", "A2", sex="M", age="18"),
    assay("P3", "S3", "A3", sex="F", age="40"),
]


def ruled(rule: str) -> str:
    return TOML.replace("[cohorts.all]\n", f"[cohorts.adults]\n{rule}\n")


ADULTS, YOUTH = (f'where = {{ "patient.age" = {{ ">=" = {age} }} }}' for age in (18, 16))
CHANGED = "the rule changed: patient.age >= 18 → patient.age >= 16"


@pytest.fixture
def project(tmp_path: Path, catalog_url: str) -> Project:
    return make_project(tmp_path / "toy", ROWS, toml=ruled(ADULTS))


def with_rule(project: Project, rule: str) -> Project:
    (project.root / "ct.toml").write_text(ruled(rule))
    return again(project)


def events(project: Project) -> list[tuple[str, dict]]:
    with project.catalog.read() as connection:
        rows = connection.execute(select(event).where(event.c.kind == "cohort-rule").order_by(event.c.seq))
        return [(row.subject, json.loads(row.body)) for row in rows]


def words(project: Project, partition: str = "adults") -> list[str]:
    found = UNMASKED.verdict(evaluate(project).of("joined", partition)).reasons
    return [str(reason) for reason in found if reason.kind != "upstream"]


def test_a_rule_is_written_down_once_with_who_was_in_it(project: Project) -> None:
    assert record_rules(project) == record_rules(again(project)) == []
    ((subject, body),) = events(project)
    assert subject == "cohort/adults" and body["old"] is None
    assert body["members"] == {"patient": 2, "specimen": 2, "assay": 2}


def test_a_changed_rule_is_an_event_that_the_next_look_reports(project: Project) -> None:
    other = with_rule(project, YOUTH)
    assert look(other).changes == [f"cohort adults: {CHANGED}"]
    assert look(again(other)).changes == []
    (_, body) = events(other)[-1]
    assert (body["old"]["words"], body["new"]["words"]) == ("patient.age >= 18", "patient.age >= 16")
    with other.catalog.read() as connection:
        listed = rule_versions(connection, "adults")
    assert [one.members["patient"] for one in listed] == [2, 3]
    assert all(one.actor == other.catalog.actor and one.at for one in listed)


def test_a_cohort_that_is_gone_and_comes_back_is_written_down(project: Project) -> None:
    record_rules(with_rule(project, "\n[cohorts.others]"))
    (project.root / "ct.toml").write_text(TOML)
    assert record_rules(again(project)) == [
        "cohort adults: is not declared any more",
        "cohort others: is not declared any more",
    ]
    assert record_rules(with_rule(project, ADULTS)) == ["cohort all: is not declared any more"]
    assert [body["new"]["words"] for who, body in events(project) if who == "cohort/adults"] == [
        "patient.age >= 18",
        "everybody",
        "not declared any more",
        "patient.age >= 18",
    ]


def test_members_that_came_by_the_rule_say_so_and_others_do_not(project: Project) -> None:
    make_all(project)
    other = with_rule(project, YOUTH)
    assert words(other) == [f"member-added: merged/S1 as specimens, {CHANGED}"]
    add(other, [assay("P4", "S4", "A4", sex="F", age="50"), assay("P5", "S5", "A5", sex="F", age="17")])
    fail(other, "S2")
    assert sorted(words(other)) == [
        f"member-added: merged/S1 as specimens, {CHANGED}",
        "member-added: merged/S4 as specimens",
        f"member-added: merged/S5 as specimens, {CHANGED}",
        "member-removed: merged/S2 as specimens",
    ]


def test_members_that_went_by_the_rule_say_so(project: Project) -> None:
    make_all(project)
    other = with_rule(project, ADULTS.replace("18", "41"))
    assert words(other) == [
        f"member-removed: merged/{who} as specimens, the rule changed: patient.age >= 18 → patient.age >= 41"
        for who in ("S2", "S3")
    ]


def test_an_old_rule_may_read_columns_that_nothing_reads_today(project: Project) -> None:
    make_all(project)
    other = with_rule(project, 'members = ["P2"]')
    assert words(other) == [
        "member-removed: merged/S3 as specimens, the rule changed: patient.age >= 18 → 1 listed patient"
    ]


def test_a_rule_with_the_same_members_makes_nothing_stale(project: Project) -> None:
    make_all(project)
    same = with_rule(project, 'members = ["P2", "P3"]')
    look(same)
    assert reasons(same) == {} and evaluate(again(same)).of("joined", "adults").state == "fresh"


def test_an_artifact_knows_its_rule_and_its_key_does_not(project: Project) -> None:
    make_all(project)
    old = project.settings.cohorts["adults"].version
    assert rule_of(project) == old
    other = with_rule(project, YOUTH)
    make_all(other)
    assert rule_of(other) == other.settings.cohorts["adults"].version != old
    back = with_rule(project, ADULTS)
    assert make_all(back) == {"joined/adults": "hit"} and rule_of(back) == old


def rule_of(project: Project) -> str | None:
    with project.catalog.read() as connection:
        joined = artifact.join(materialization, materialization.c.id == artifact.c.materialization)
        mine = select(materialization.c.rule, materialization.c.folder).select_from(joined)
        row = connection.execute(mine.where(artifact.c.asset == "joined")).one()
    assert project.store.sidecar(project.store.root / row.folder)["rule"] == row.rule
    return row.rule


def test_the_history_of_a_rule_is_a_table(project: Project) -> None:
    record_rules(with_rule(project, YOUTH))
    said = ct("-C", project.root, "cohort", "adults", "--history", "--json")
    listed = json.loads(said.out)["history"]
    assert [(one["words"], one["members"]["patient"]) for one in listed] == [
        ("patient.age >= 18", 2),
        ("patient.age >= 16", 3),
    ]
    assert "patient.age >= 16" in ct("-C", project.root, "cohort", "adults", "--history").out
