"""`--cohort`, `--pairing`, `--complete-only`: what a command is about, and what it says of the others."""

import json
from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.tables import artifact
from ctcore.cohorts.filters import NodeFilter, filter_nodes
from ctcore.cohorts.selection import named_nodes, select_nodes
from ctcore.errors import ProjectError, Usage
from ctcore.governance.consent import Statement, set_consent
from ctcore.governance.qc import QcEntry
from ctcore.governance.qc import add as add_qc
from ctcore.planning.plan import plan, scope
from ctcore.project import Project
from ctcore.query.exclusion_counts import emptied_cohorts
from tests.helpers.kit import TOML, again, assay, fail, make_all, make_project
from tests.helpers.shell import ct, shell

PAIRING = '[pairings.tn]\nby = "specimen.site"\norder = ["normal", "tumour"]\n'
COHORTS = '[cohorts.all]\n\n[cohorts.women]\nwhere = { "patient.sex" = "F" }\n'
ROWS = [
    assay("P1", "N1", "N1-0", sex="F", site="normal"),
    assay("P1", "T1", "T1-0", sex="F", site="tumour"),
    assay("P2", "T2", "T2-0", sex="F", site="tumour"),
    assay("P3", "N3", "N3-0", sex="M", site="normal"),
    assay("P3", "T3", "T3-0", sex="M", site="tumour"),
    assay("P4", "X4", "X4-0", sex="M", site="ascites"),
]


def toml(more: str = "") -> str:
    return TOML.replace("[cohorts.all]\n", COHORTS + more) + PAIRING


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "toy", ROWS, toml=toml())


def test_a_cohort_is_its_members_of_all_levels_and_itself(project: Project) -> None:
    women = {"counted": {"N1-0", "T1-0", "T2-0"}, "merged": {"N1", "T1", "T2"}, "joined": {"women"}}
    assert filter_nodes(project, NodeFilter("women"), None).keys == women
    assert select_nodes(project, ["cohort:women"]) == women
    assert select_nodes(project, ["merged/cohort:women"]) == {"merged": {"N1", "T1", "T2"}}


def test_who_is_excluded_is_no_member(project: Project) -> None:
    fail(project, "T1")
    assert filter_nodes(again(project), NodeFilter("women"), None).keys["merged"] == {"N1", "T2"}


def test_complete_only_leaves_out_what_is_not_and_says_why(project: Project) -> None:
    found = filter_nodes(project, NodeFilter(complete_only=True), None)
    assert found.keys == {"counted": {"N1-0", "T1-0", "N3-0", "T3-0"}, "merged": {"N1", "T1", "N3", "T3"}}
    assert found.notes == (
        "left out: 2 patients by tn (2 complete, 0 incomplete, 0 broken, 1 singleton, 1 without any of it)",
        "  P2 singleton: no assay of normal",
    )


def test_a_pairing_alone_is_who_has_any_of_it(project: Project) -> None:
    found = filter_nodes(project, NodeFilter(pairing="tn"), None)
    assert found.keys["merged"] == {"N1", "T1", "T2", "N3", "T3"}
    assert found.notes == ("left out: 1 patient by tn (3 have some of it, 1 without any of it)",)


def test_a_cohort_with_an_excluded_member_is_excluded(project: Project) -> None:
    found = filter_nodes(project, NodeFilter("women", complete_only=True), None)
    assert found.keys == {"counted": {"N1-0", "T1-0"}, "merged": {"N1", "T1"}}
    assert "women itself is made from all of its members, and left out too" in found.notes[-1]
    (project.root / "ct.toml").write_text(toml('[cohorts.some]\nmembers = ["P1", "P3"]\n'))
    whole = filter_nodes(again(project), NodeFilter("some", complete_only=True), None)
    assert whole.keys["joined"] == {"some"} and whole.notes == ("left out: nobody; all are complete in tn",)


def test_it_goes_together_with_steps_and_nodes(project: Project) -> None:
    keys = select_nodes(project, ["merged", "counted/T2-0"])
    assert filter_nodes(project, NodeFilter("women", complete_only=True), keys).keys == {"merged": {"N1", "T1"}}
    with pytest.raises(Usage, match="none of the selected nodes is left by --cohort women; `ct cohort"):
        filter_nodes(project, NodeFilter("women"), select_nodes(project, ["merged/T3"]))


def test_of_excluded_nodes_it_says_how_many_and_by_what(project: Project) -> None:
    """In kinds and numbers: who may not be used is not named."""
    fail(project, "T1", "P2")
    set_consent(project, ["P1"], Statement("revoked", form="form 1"))
    project = again(project)
    named = select_nodes(project, ["merged/N1", "merged/T1", "merged/T2"])
    all_of_them = r"^all 3 selected nodes are excluded \(2 consent revoked, 1 qc_fail\); `ct status --all` lists them$"
    with pytest.raises(Usage, match=all_of_them):
        filter_nodes(project, NodeFilter("women"), named)
    with pytest.raises(Usage, match=r"^'merged/cohort:women' selects nothing: nobody of it is there and may be used"):
        select_nodes(project, ["merged/cohort:women"])
    repeated = ct("-C", project.root, "run", "--again", "counted/T[12]*")
    said = "ct: all 2 selected nodes are excluded (1 consent revoked, 1 qc_fail); `ct status --all` lists them\n"
    assert (repeated.code, repeated.err) == (2, said)
    some = select_nodes(project, ["merged/N1", "merged/N3"])
    with pytest.raises(
        Usage, match=r"left by --cohort women; 1 is excluded \(1 consent revoked\), and `ct cohort --coh"
    ):
        filter_nodes(project, NodeFilter("women"), some)
    assert emptied_cohorts(project, ["all", "women"]) == [
        "nobody of women may be used; excluded from all: 2 patients (1 consent revoked, 1 qc_fail), "
        "3 specimens (2 consent revoked, 1 qc_fail), 3 assays (2 consent revoked, 1 qc_fail)"
    ]


def test_the_members_of_a_cohort_are_selected_in_every_command(project: Project) -> None:
    assert named_nodes(project, ["merged/cohort:women,merged/pairing:tn", "merged/T2"]) == [("merged", "T2")]


def test_censoring_for_one_step_breaks_its_pair_only(project: Project) -> None:
    add_qc(project, [QcEntry("specimen", "T3", "qc_fail", "too little for this", step="merged")])
    found = filter_nodes(again(project), NodeFilter(complete_only=True), None)
    assert found.keys == {"counted": {"N1-0", "T1-0", "N3-0", "T3-0"}, "merged": {"N1", "T1"}}
    said = ct("-C", project.root, "cohort", "--pairing", "tn", "--for", "merged", "--broken-only", "--json")
    row = json.loads(said.out)["rows"][0]
    assert (row["patient"], row["reason"]) == ("P3", "tumour: T3 may not be used for merged")
    assert json.loads(ct("-C", project.root, "cohort", "--pairing", "tn", "--json").out)["counts"]["broken"] == 0


def test_the_pairing_is_that_of_the_cohort_or_the_only_one(project: Project) -> None:
    assert NodeFilter(complete_only=True).resolved_pairing(project) == "tn"
    more = PAIRING.replace(".tn", ".other")
    (project.root / "ct.toml").write_text(toml('[cohorts.p]\npairing = "other"\n') + more)
    other = again(project)
    assert (
        NodeFilter("p", complete_only=True).resolved_pairing(other) == "other"
        and NodeFilter("p").resolved_pairing(other) is None
    )
    with pytest.raises(Usage, match="complete in which pairing\\? say which: --pairing tn or other"):
        NodeFilter("women", complete_only=True).resolved_pairing(other)
    with pytest.raises(Usage, match="no pairing 'tnn'; declared: tn, other; did you mean 'tn'\\?"):
        NodeFilter(pairing="tnn").resolved_pairing(other)
    with pytest.raises(Usage, match="no cohort 'woman'; declared: all, women, p; did you mean 'women'\\?"):
        filter_nodes(other, NodeFilter("woman"), None)


def test_a_step_never_made_alone_is_not_named_by_a_cohort(project: Project) -> None:
    (project.root / "ct.toml").write_text(toml() + '[policy]\nmerged = "never"\n')
    other = again(project)
    assert scope(other, (), NodeFilter("women")).leaves_alone(other, "merged")
    assert not scope(other, ("merged",), NodeFilter("women")).leaves_alone(other, "merged")
    first = plan(other, narrowing=NodeFilter("women")).steps[0]
    assert (first.step, len(first.run)) == ("counted", 3)


def test_run_makes_complete_cases_and_names_who_is_left_out(project: Project) -> None:
    done = shell("-C", project.root, "run", "--complete-only")
    assert done.code == 0, done.err
    assert "left out: 2 patients by tn" in done.err and "P2 singleton: no assay of normal" in done.err
    with project.catalog.read() as connection:
        made = {tuple(row) for row in connection.execute(select(artifact.c.asset, artifact.c.partition))}
    assert {key for asset, key in made if asset == "merged"} == {"N1", "T1", "N3", "T3"}
    assert not any(asset == "joined" for asset, _ in made)


def test_plan_stale_and_status_are_of_the_same_nodes(project: Project) -> None:
    shell = ["-C", project.root]
    planned = ct(*shell, "plan", "--cohort", "women", "--complete-only", "--json")
    assert {one["step"]: one["at_most"] for one in json.loads(planned.out)["in_order"]} == {"counted": 2, "merged": 2}
    assert planned.code == 3 and "P2 singleton" in planned.err
    stale = ct(*shell, "stale", "--cohort", "women", "--complete-only", "--json")
    assert {one["step"]: one["nodes"] for one in json.loads(stale.out)["steps"]} == {"counted": 2, "merged": 2}
    status = ct(*shell, "status", "--cohort", "women", "--complete-only", "--json")
    assert {level: list(one["entities"]) for level, one in json.loads(status.out).items()} == {
        "specimen": ["N1", "T1"],
        "assay": ["N1-0", "T1-0"],
    }
    assert status.code == stale.code == 3
    make_all(project)
    assert ct(*shell, "status", "--cohort", "women").code == ct(*shell, "stale", "--cohort", "women").code == 0
    assert ct(*shell, "plan", "--pairing", "tn", "--complete-only").code == 0


def test_a_saved_plan_says_itself_what_it_is_of(project: Project) -> None:
    done = ct("-C", project.root, "run", "--plan", "x.json", "--cohort", "women")
    assert done.code == 2 and "leave out either --plan or the steps, nodes and cohort" in done.err


def test_the_command_shows_rules_members_and_what_finds_nobody(project: Project) -> None:
    (project.root / "ct.toml").write_text(
        toml('[cohorts.x]\nmembers = ["P11", "P2"]\nwhere = { "specimen.site" = ["tumor", "normal"] }\n')
    )
    said = ct("-C", project.root, "cohort", "x")
    assert "specimen.site is tumor or normal and 2 listed patients" in said.out
    assert "[cohorts.x] a listed patient is not registered: P11 (did you mean P1?)" in said.err
    assert "[cohorts.x] specimen.site: nobody has tumor (did you mean tumour?)" in said.err
    assert ct("-C", project.root, "cohort", "women").err.count("nobody") == 0


def test_the_rows_of_a_pairing_are_those_of_the_cohort(project: Project) -> None:
    said = json.loads(ct("-C", project.root, "cohort", "women", "--pairing", "tn", "--json").out)
    assert [(row["patient"], row["status"]) for row in said["rows"]] == [("P1", "complete"), ("P2", "singleton")]
    assert said["counts"]["none"] == 0


def test_a_gap_in_an_order_is_named(project: Project) -> None:
    (project.root / "ct.toml").write_text(toml().replace('["normal", "tumour"]', '["normal", "ascites", "tumour"]'))
    rows = json.loads(ct("-C", project.root, "cohort", "--pairing", "tn", "--json").out)["rows"]
    assert {row["patient"]: row["reason"] for row in rows}["P1"] == "no assay of ascites, between normal and tumour"


def test_a_pairing_of_a_cohort_has_to_be_declared(project: Project) -> None:
    (project.root / "ct.toml").write_text(toml('[cohorts.p]\npairing = "tm"\n'))
    with pytest.raises(ProjectError, match="pairing = 'tm': no such pairing; known: tn"):
        _ = again(project).settings
