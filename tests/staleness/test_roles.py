"""Members with roles: what each is, recorded with what was made; another role is a reason of its own."""

import json
from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.tables import member
from ctcore.errors import CtError
from ctcore.governance.masking import UNMASKED
from ctcore.intake.register import register
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import ROWS, STEPS, again, assay, make_all, make_project, reasons, write_sheet
from tests.helpers.shell import ct

STEP = '''

@step(level="patient", inputs={"specimens": "merged"}, role="specimen.site", outputs={"n": "n.txt"})
def somatic(call: Call) -> None:
    """Tumour against normal."""
    names = {role: [one.entity for one in call.members("specimens", role)] for role in ("tumour", "normal", None)}
    call.out("n").write_text(str(names))


@step(level="cohort", inputs={"specimens": "merged"}, role="specimen.site", outputs={"n": "n.txt"})
def panel(call: Call) -> None:
    """What each member is."""
    call.out("n").write_text(str([(one.entity, one.role) for one in call.many("specimens")]))
'''
PEOPLE = (
    assay("P1", "S1", "A1", sex="F", site="tumour"),
    assay("P1", "S2", "A2", sex="F", site="normal"),
    assay("P2", "S3", "A3", sex="M"),
)


@pytest.fixture
def project(tmp_path: Path, catalog_url: str) -> Project:
    made = make_project(tmp_path, PEOPLE, STEPS + STEP)
    make_all(made)
    assert reasons(made) == {}
    return made


def with_site(project: Project, specimen: str, site: str) -> None:
    rows = [{**row, "site": site} if row["specimen_id"] == specimen else row for row in PEOPLE]
    register(project, write_sheet(project.root, rows), AllowedChanges(frozenset(), frozenset({"specimen.site"})))


def roles(project: Project, step: str, partition: str) -> dict[str, str]:
    number = (
        evaluate(project)
        .state.snapshot.made[step]
        .materialization[evaluate(project).state.snapshot.locate(step, [partition])[0]]
    )
    with project.catalog.read() as connection:
        rows = connection.execute(select(member).where(member.c.materialization == int(number)))
        return {row.entity: row.role for row in rows}


def test_a_step_sees_members_by_role_and_roles_are_recorded(project: Project) -> None:
    path = ct("-C", project.root, "path", "somatic/P1", "n").out.strip()
    assert Path(path).read_text() == "{'tumour': ['S1'], 'normal': ['S2'], None: []}"
    assert roles(project, "somatic", "P1") == {"S1": "tumour", "S2": "normal"}
    assert roles(project, "panel", "all") == {"S1": "tumour", "S2": "normal", "S3": "blank"}
    assert roles(project, "joined", "all") == dict.fromkeys(("S1", "S2", "S3"), "member"), "it declares none"


def test_another_role_is_a_reason_with_what_it_was_and_is(project: Project) -> None:
    with_site(project, "S2", "tumour")
    assert reasons(project) == {"somatic/P1": ["member-role"], "panel/all": ["member-role"]}
    said = evaluate(project).of("panel", "all").reasons
    assert [(UNMASKED.mask_words(one.sentence), one.old, one.new) for one in said] == [
        ("member-role: specimen/S2 normal → tumour", '"normal"', '"tumour"')
    ]
    assert "specimen/S2 normal → tumour" in ct("-C", project.root, "why", "somatic/P1").out
    with_site(project, "S2", "normal")
    assert reasons(project) == {}
    with_site(project, "S3", "normal")
    make_all(project)
    assert roles(project, "panel", "all")["S3"] == "normal" and reasons(project) == {}
    said_now = ct("-C", project.root, "diff", "panel").out
    assert "member-role" in said_now and "specimen/S3 blank → normal" in said_now


def test_another_role_can_be_accepted(project: Project) -> None:
    with_site(project, "S2", "tumour")
    said = ct("-C", project.root, "accept", "panel/all", "--only", "member-role", "--reason", "only a name")
    assert said.code == 0, said.err
    assert reasons(project) == {"somatic/P1": ["member-role"]}


def test_roles_are_shown_wherever_members_are(project: Project) -> None:
    shown = json.loads(ct("-C", project.root, "show", "somatic/P1", "--json").out)["members"]
    assert [(one["entity"], one["role"]) for one in shown] == [("S1", "tumour"), ("S2", "normal")]
    assert "S1\ttumour" in ct("-C", project.root, "show", "somatic/P1").out
    assert "role:specimen.site of S1: tumour" in ct("-C", project.root, "trace", "somatic/P1").out
    asked = "SELECT member, role FROM members WHERE step = 'somatic' AND entity = 'P1'"
    assert ct("-C", project.root, "query", asked).out.splitlines()[1:] == ["S1\ttumour", "S2\tnormal"]
    status = json.loads(ct("-C", project.root, "status", "--json").out)
    assert status["cohort"]["roles"]["panel"]["all"] == {"blank": 1, "normal": 1, "tumour": 1}


def test_a_new_member_with_a_role_is_only_a_new_member(project: Project) -> None:
    rows = [*PEOPLE, assay("P2", "S4", "A4", site="tumour")]
    register(project, write_sheet(project.root, rows))
    from ctcore.intake.raw_files import look

    look(project)
    kinds = reasons(project)
    assert kinds["panel/all"] == kinds["somatic/P2"] == ["member-added", "upstream"]


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ('role="site"', "column 'site': write level.column"),
        ('role="specimen.sites"', "add sites to [levels.specimen.columns]"),
        ('role="patient.sex"', "role 'patient.sex': no input has members of that level or below it"),
        ('role="assay.library"', "role 'assay.library': no input has members of that level or below it"),
    ],
)
def test_a_role_that_tells_no_members_apart_is_refused(tmp_path: Path, declared: str, said: str) -> None:
    steps = STEPS + STEP.replace('role="specimen.site"', declared, 1)
    with pytest.raises(CtError, match=r"role|column") as refused:
        _ = make_project(tmp_path, ROWS, steps).steps
    assert said in str(refused.value)


def test_a_role_of_assays_may_be_their_specimens_column(tmp_path: Path) -> None:
    more = STEP.replace('{"specimens": "merged"}', '{"specimens": "counted"}')
    project = make_project(tmp_path, PEOPLE, STEPS + more)
    make_all(again(project))
    assert roles(project, "somatic", "P1") == {"A1": "tumour", "A2": "normal"}
