"""The gate: who is excluded is excluded everywhere, in words; and what was true before is true again afterwards."""

import re
from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.tables import event
from ctcore.cohorts.lookup import find_node
from ctcore.cohorts.registry import entries
from ctcore.errors import Usage
from ctcore.governance.access import barred_entities
from ctcore.governance.consent import Statement, set_consent
from ctcore.governance.masking import UNMASKED
from ctcore.governance.qc import Choice, QcEntry, add, resolve
from ctcore.inputs.current import forget
from ctcore.inputs.key import prepare
from ctcore.lineage.explain import why
from ctcore.planning.requests import nodes_untold, ready_nodes, state_of_the_world
from ctcore.project import Project
from ctcore.query.disclosure import disclose
from ctcore.staleness.accept import accept, propose
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import ROWS, TOML, again, assay, make, make_all, make_project, reasons
from tests.helpers.kit import add as register_rows
from tests.helpers.shell import ct

pytestmark = pytest.mark.usefixtures("catalog_url")
REVOKED = Statement("revoked", dated="2024-01-20", form="withdrawal form 12")
WORDS = "patient P1: consent revoked on 2024-01-20 (withdrawal form 12)"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two patients, three assays, everything made."""
    made = make_project(tmp_path / "toy")
    make_all(made)
    return made


def said(project: Project, node: str) -> str:
    return why(project, find_node(project, node)).text


def contaminated(project: Project, who: str = "A1") -> None:
    add(project, [QcEntry("assay", who, "contamination", "foreign DNA")])


def states(project: Project) -> dict[str, str]:
    verdicts = evaluate(project)
    names = {step.name: step for step in project.steps}
    return {
        f"{name}/{key}": verdicts.of(name, key).state
        for name, keys in (("counted", ("A1", "A2", "A3")), ("merged", ("S1", "S2")), ("joined", ("all",)))
        if name in names
        for key in keys
    }


def test_a_revocation_excludes_all_that_is_below_the_patient(project: Project) -> None:
    set_consent(project, ["P1"], REVOKED)
    assert states(project) == {
        "counted/A1": "excluded",
        "counted/A2": "excluded",
        "counted/A3": "fresh",
        "merged/S1": "excluded",
        "merged/S2": "fresh",
        "joined/all": "stale",
    }
    for node in ("counted/A1", "counted/A2", "merged/S1", "specimen/S1", "patient/P1", "assay/A2"):
        assert said(project, node) == f"{node} is excluded: {WORDS}"


def test_what_contains_a_former_member_says_who_and_why(project: Project) -> None:
    set_consent(project, ["P1"], REVOKED)
    text = said(project, "joined/all")
    assert "joined/all is stale: member-removed: merged/S1 as specimens" in text
    assert f"merged/S1 as specimens: {WORDS}" in text


def test_censoring_makes_stale_and_releasing_makes_fresh(
    project: Project,
) -> None:
    contaminated(project)
    assert reasons(project) == {"merged/S1": ["member-removed"], "joined/all": ["upstream"]}
    assert "contamination" in said(project, "merged/S1") and "foreign DNA" in said(project, "merged/S1")
    resolve(project, Choice(entity=("assay", "A1")), "sequenced again, clean")
    assert reasons(project) == {} == reasons(again(project))
    assert make_all(project) == {}


def test_a_result_without_somebody_gives_way_without_a_run(project: Project) -> None:
    contaminated(project)
    assert make_all(project) == {"merged/S1": "made", "joined/all": "made"}
    assert reasons(project) == {}
    resolve(project, Choice(entity=("assay", "A1")), "a mix-up of tubes")
    assert reasons(project)["merged/S1"] == ["member-added"]
    assert make_all(project) == {"merged/S1": "hit", "joined/all": "hit"}


def test_an_updated_and_a_new_snapshot_are_the_same(project: Project) -> None:
    for act in (
        lambda: contaminated(project),
        lambda: add(project, [QcEntry("specimen", "S2", "qc_fail", "low yield", step="joined")]),
        lambda: set_consent(project, ["P1"], REVOKED),
        lambda: resolve(project, Choice(entity=("specimen", "S2")), "enough"),
    ):
        act()
        followed = states(project), reasons(project)
        forget()
        assert (states(again(project)), reasons(again(project))) == followed


def test_a_saved_mirror_knows_who_is_barred_and_for_what(project: Project) -> None:
    contaminated(project, "A3")
    add(project, [QcEntry("specimen", "S1", "qc_fail", "low yield", step="joined")])
    before = states(project), reasons(project)
    for _ in range(2):  # the first one writes what the second one reads
        forget()
        assert (states(again(project)), reasons(again(project))) == before


def test_making_below_a_revoked_patient_is_refused(project: Project) -> None:
    set_consent(project, ["P1"], REVOKED)
    blocked = prepare(project, project.steps["counted"], ["A1"]).blocked["A1"]
    assert UNMASKED.mask_words(blocked) == f"counted/A1 is excluded: {WORDS}"
    assert [(one.state, one.why) for one in make(project, "counted", "A1")] == [
        ("blocked", f"counted/A1 is excluded: {WORDS}")
    ]
    told = ct("-C", project.root, "run", "counted/A1")
    assert (told.code, told.err.strip()) == (2, f"ct: counted/A1 is excluded: {WORDS}")


def test_nothing_is_asked_for_of_somebody_who_is_excluded(project: Project) -> None:
    register_rows(project, [*ROWS, assay("P1", "S1", "A9", sex="F", age="40")])
    set_consent(project, ["P1"], REVOKED)
    asked = [*ready_nodes(evaluate(project)), *nodes_untold(project, lambda _: set())]
    assert {one.node for one in asked} == {("joined", "all"), ("counted", "A3"), ("merged", "S2")}


def test_excluded_content_shows_only_by_name_and_on_record(project: Project) -> None:
    set_consent(project, ["P1"], REVOKED)
    for node in ("counted/A1", "patient/P1", "assay/A2"):
        with pytest.raises(Usage, match=r"consent revoked on 2024-01-20 .* --excluded --reason TEXT"):
            disclose(project, find_node(project, node), False, None)
        with pytest.raises(Usage, match="say in one line why"):
            disclose(project, find_node(project, node), True, " ")
    for command in ("path", "show"):
        told = ct("-C", project.root, command, "counted/A1")
        assert told.code == 2 and WORDS in told.err and not told.out
    told = ct("-C", project.root, "path", "counted/A1", "--excluded", "--reason", "audit 7")
    assert told.code == 0 and told.out.startswith(str(project.root))
    with project.catalog.read() as connection:
        row = connection.execute(select(event).where(event.c.kind == "disclose")).one()
    assert row.subject == "counted/A1" and "audit 7" in row.body


def test_a_failed_assay_is_described_its_results_withheld(project: Project) -> None:
    contaminated(project)
    assert ct("-C", project.root, "show", "assay/A1").code == 0
    assert ct("-C", project.root, "path", "counted/A1").code == 2


def test_dagster_is_told_nothing_of_those_without_consent(project: Project) -> None:
    set_consent(project, ["P1"], REVOKED)
    told = {one.partition: one.declared for one in entries(project, "assay")}
    assert told["A1"] == told["A2"] == {"attributes": {}, "files": {}}
    assert told["A3"]["files"]


def test_a_sheet_is_tried_also_where_somebody_is_excluded(project: Project) -> None:
    set_consent(project, ["P1"], REVOKED)
    sheet = project.root / "sheet.csv"
    sheet.write_text(sheet.read_text().replace("M", "F"))
    told = ct("-C", project.root, "register", sheet, "--dry-run", "--update", "patient.sex")
    assert told.code == 0 and "merged: 1 stale" in told.err.replace(" would be", "")


def test_who_revoked_is_named_nowhere_and_counted(project: Project) -> None:
    add(project, [QcEntry("specimen", "S1", "superseded", "sampled again", step="joined")])
    accept(project, propose(project, {"joined": {"all"}}), "the same tissue")
    assert "merged/S1" in ct("-C", project.root, "accept", "--list").out
    set_consent(project, ["P1"], REVOKED)
    for call in (["accept", "--list"], ["status"], ["stale", "--why"], ["plan"], ["verify", "--quick"]):
        told = ct("-C", project.root, *call)
        assert not re.search(r"\b(P1|S1|A1|A2)\b", told.out + told.err), call
    assert "1 patient, 1 specimen, 2 assays" in ct("-C", project.root, "status").err
    assert (
        "joined/all is excluded: 1 patient in it whose consent does not allow it today"
        in ct("-C", project.root, "trace", "joined/all").err
    )


def test_status_counts_the_excluded_apart(project: Project) -> None:
    contaminated(project)
    told = ct("-C", project.root, "status")
    assert "S1\tA1\texcluded" in told.out and "\tfresh\t2/2" in told.out
    assert evaluate(project).count("counted") == {"fresh": 2, "excluded": 1}


def test_an_ending_consent_changes_verdicts_on_its_day(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    set_consent(project, ["P2"], Statement("full", dated="2024-01-01", until="2031-05-01", form="form 3"))
    assert reasons(project) == {}
    world = state_of_the_world(project)
    for module in ("ctcore.snapshot.snapshot", "ctcore.planning.requests"):
        monkeypatch.setattr(f"{module}.today", lambda: "2031-04-30")
    assert reasons(project) == {} and state_of_the_world(project) == world
    for module in ("ctcore.snapshot.snapshot", "ctcore.planning.requests"):
        monkeypatch.setattr(f"{module}.today", lambda: "2031-05-01")
    assert reasons(project) == {"joined/all": ["member-removed"]}
    assert state_of_the_world(project) != world
    assert said(project, "counted/A3") == "counted/A3 is excluded: patient P2: consent expired on 2031-05-01 (form 3)"
    forget()
    assert reasons(again(project)) == {"joined/all": ["member-removed"]}


def test_the_gate_holds_until_the_next_consent_ends(project: Project) -> None:
    set_consent(project, ["P1"], Statement("full", until="2031-05-01"))
    set_consent(project, ["P2"], Statement("full", until="2030-02-01"))
    with project.catalog.read() as connection:
        first, second, third = (
            barred_entities(connection, {}, day) for day in ("2029-01-01", "2030-02-01", "2031-05-01")
        )
    assert (first.until, second.until, third.until) == ("2030-02-01", "2031-05-01", "9999-12-31")
    assert [len(one.everywhere) for one in (first, second, third)] == [0, 1, 2]


def test_limited_consent_excludes_from_steps_of_other_uses(tmp_path: Path) -> None:
    toml = (
        TOML + '\n[consent]\nuses = ["research", "commerce"]\nuse = "research"\n[consent.steps]\njoined = "commerce"\n'
    )
    project = make_project(tmp_path / "limited", toml=toml)
    make_all(project)
    set_consent(project, ["P2"], Statement("limited", ("research",), form="form 4"))
    assert reasons(project) == {"joined/all": ["member-removed"]}
    assert "patient P2: consent is limited to research (form 4), and joined is for commerce" in said(
        project, "joined/all"
    )
    set_consent(project, ["P2"], Statement("limited", ("commerce", "research")))
    assert reasons(project) == {}


def test_a_limited_consent_is_not_used_for_an_unnamed_use(tmp_path: Path) -> None:
    project = make_project(tmp_path / "limited", toml=TOML + '\n[consent]\nuses = ["research"]\n')
    make_all(project)
    set_consent(project, ["P2"], Statement("limited", ("research",)))
    assert "counted is for no use that ct.toml names" in said(project, "counted/A3")


def test_declaring_uses_in_ct_toml_changes_who_is_usable(tmp_path: Path) -> None:
    project = make_project(tmp_path / "limited", toml=TOML + '\n[consent]\nuses = ["research"]\n')
    make_all(project)
    set_consent(project, ["P2"], Statement("limited", ("research",)))
    (project.root / "ct.toml").write_text(TOML + '\n[consent]\nuses = ["research"]\nuse = "research"\n')
    assert reasons(again(project)) == {}


def test_that_somebody_revoked_consent_is_nothing_to_accept(project: Project) -> None:
    set_consent(project, ["P1"], REVOKED)
    with pytest.raises(
        Usage,
        match=r"consent of a member is wanting, and that cannot be accepted; .* `ct why joined/all`",
    ):
        propose(project, {"joined": {"all"}})
    add(project, [QcEntry("specimen", "S2", "superseded", "sampled again")])
    found = propose(project, {"joined": {"all"}})
    assert [reason.node for reason in found.reasons["joined", "all"]] == [("merged", "S2")]
    assert found.left == {"member-removed": 1}


def test_a_revocation_undoes_acceptances_of_a_failed_member(project: Project) -> None:
    number = add(project, [QcEntry("specimen", "S1", "superseded", "sampled again")]).events[0][0]
    accept(project, propose(project, {"joined": {"all"}}), "the same tissue")
    assert reasons(project) == {}
    set_consent(project, ["P1"], REVOKED)
    assert reasons(project) == {"joined/all": ["member-removed"]}
    resolve(project, Choice(event=number), "kept after all")
    assert reasons(project) == {"joined/all": ["member-removed"]} == reasons(again(project))
