"""Consent holds through any number of steps: what is for a use has nobody inside whose consent does not allow it."""

import json
from pathlib import Path

import pytest
from sqlalchemy import func, select

from ctcore.catalog.tables import event
from ctcore.errors import Usage
from ctcore.governance.access import missing_consents
from ctcore.governance.consent import STATUSES, Statement, set_consent
from ctcore.governance.masking import mask_of
from ctcore.governance.qc import QcEntry
from ctcore.governance.qc import add as add_qc
from ctcore.project import Project
from ctcore.staleness.accept import accept, propose
from ctcore.staleness.verdicts import evaluate
from ctcore.util.clock import today
from tests.governance.test_gate_everywhere import CHAIN, DEEP
from tests.helpers.kit import STEPS, TOML, Inline, again, make, make_all, make_project, reasons
from tests.helpers.shell import ct

pytestmark = pytest.mark.usefixtures("catalog_url")
USES = '\n[consent]\nuses = ["research", "commerce"]\nuse = "research"\n[consent.steps]\n'
RESEARCH = Statement("limited", ("research",), form="form 4")
REVOKED = Statement("revoked", dated="2024-01-20", form="withdrawal form 12")
FAR = [1, 2, DEEP]


def project_of(root: Path, **uses: str) -> Project:
    """All for research, but some; `after1` is made of the join, `after2` of that, and so on."""
    said = "".join(f'{step} = "{use}"\n' for step, use in uses.items())
    return make_project(root / "toy", toml=TOML + USES + said, steps=STEPS + CHAIN)


def declare(project: Project, **uses: str) -> Project:
    said = "".join(f'{step} = "{use}"\n' for step, use in uses.items())
    (project.root / "ct.toml").write_text(TOML + USES + said)
    return again(project)


def table(project: Project, step: str) -> str:
    return Path(ct("-C", project.root, "path", f"{step}/all", "table").out.strip()).read_text()


@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("made", [True, False], ids=["made before", "never made"])
def test_research_consent_is_in_nothing_commercial_however_far(tmp_path: Path, far: int, made: bool) -> None:
    step = f"after{far}"
    project = project_of(tmp_path, **{step: "commerce"})
    if made:
        make_all(project)
    set_consent(project, ["P1"], RESEARCH)
    project = again(project)
    found = evaluate(project).of(step, "all")
    assert found.state == "excluded" and evaluate(project).of("joined", "all").state == ("fresh" if made else "missing")
    made_now = make_all(project)
    assert not [node for node in made_now if node.startswith(step)]
    assert [one.state for one in make(project, step, "all", runner=Inline(project))] == ["blocked"]
    up = "joined" if far == 1 else f"after{far - 1}"
    words = f"1 patient inside {up}/all does not consent to commerce, which {step} is for; [consent.steps] joined"
    for call in (
        ["run", f"{step}/all"],
        ["run", step],
        ["path", f"{step}/all"],
        ["why", f"{step}/all"],
        ["trace", f"{step}/all"],
    ):
        told = ct("-C", project.root, *call)
        if call[0] != "trace" or made:
            assert told.code in (2, 3) and words in told.out + told.err, call
    assert "P1" not in ct("-C", project.root, "why", f"{step}/all").out
    assert "S1" in table(project, up)


def test_declaring_the_steps_between_makes_it_without_them(tmp_path: Path) -> None:
    project = project_of(tmp_path, after2="commerce")
    make_all(project)
    assert "S1" in table(project, "after2")
    set_consent(project, ["P1"], RESEARCH)
    told = ct("-C", project.root, "path", "after2/all").err
    assert '[consent.steps] joined = "commerce", after1 = "commerce" makes' in told
    project = declare(project, joined="commerce", after1="commerce", after2="commerce")
    make_all(project)
    assert evaluate(project).of("after2", "all").state == "fresh"
    assert table(project, "after2").startswith("S2") and "S1" not in table(project, "after2")
    project = declare(project, after2="research")
    make_all(project)
    assert "S1" in table(project, "after2")


def test_a_result_for_another_use_is_not_made_from_it_either(tmp_path: Path) -> None:
    project = project_of(tmp_path, after2="commerce")
    make_all(project)
    set_consent(project, ["P1"], RESEARCH)
    states = {step: evaluate(project).of(step, "all").state for step in ("after1", "after2", "after3", "after5")}
    assert states == {"after1": "fresh", "after2": "excluded", "after3": "excluded", "after5": "excluded"}
    set_consent(project, ["P1"], Statement("full"))
    assert reasons(project) == {} and evaluate(project).of("after5", "all").state == "fresh"


@pytest.mark.parametrize("how", ["revoked", "ended", "pending", "limited"])
@pytest.mark.parametrize("far", FAR)
def test_results_with_a_person_are_read_by_nobody_then_remade(tmp_path: Path, how: str, far: int) -> None:
    said = {
        "revoked": REVOKED,
        "ended": Statement("full", until="2020-01-01"),
        "pending": Statement("pending"),
        "limited": Statement("limited", ("commerce",)),
    }
    step = f"after{far}"
    project = project_of(tmp_path)
    make_all(project)
    set_consent(project, ["P1"], said[how])
    project, node = again(project), f"{step}/all"
    for call in (["path", node], ["show", node, "--json"], ["logs", node], ["trace", node, "--json"], ["diff", node]):
        refused = ct("-C", project.root, *call)
        if call[0] != "diff":
            assert refused.code == 2 and "is excluded" in refused.err and "S1" not in refused.err, call
    rows = json.loads(
        ct("-C", project.root, "query", f"SELECT folder FROM artifacts WHERE step = '{step}'", "--json").out
    )
    assert rows == [{"folder": None}]
    outcome = make(project, step, "all", runner=Inline(project))
    up = "joined" if far == 1 else f"after{far - 1}"
    assert [(one.state, one.why) for one in outcome] == [
        (
            "blocked",
            f"input {up}/all has 1 patient inside whose consent does not allow research today; "
            f"`ct run {up}/all` makes it without them",
        )
    ]
    make_all(project)
    assert "S1" not in table(project, step) and evaluate(project).of(step, "all").state == "fresh"
    sides = json.loads(ct("-C", project.root, "diff", node, "--json").out)
    assert sides["a"]["folder"] is None and sides["b"]["folder"], "the former one has them inside"


def test_containment_through_an_input_cannot_be_accepted(tmp_path: Path) -> None:
    project = project_of(tmp_path)
    make_all(project)
    set_consent(project, ["P1"], REVOKED)
    make(project, "joined", "all", runner=Inline(project))
    project = again(project)
    assert [reason.kind for reason in evaluate(project).of("after1", "all").reasons] == ["input"]
    with pytest.raises(Usage, match="consent of a member is wanting"):
        propose(project, {"after1": {"all"}})
    assert ct("-C", project.root, "path", "after1/all").code == 2


def test_an_acceptance_before_a_revocation_no_longer_holds(tmp_path: Path) -> None:
    project = project_of(tmp_path)
    make_all(project)
    add_qc(project, [QcEntry("specimen", "S1", "qc_fail", "low yield")])
    make(project, "joined", "all", runner=Inline(project))
    project = again(project)
    accept(project, propose(project, {"after1": {"all"}}), "the same for our purpose")
    assert evaluate(project).of("after1", "all").state == "fresh"
    set_consent(project, ["P1"], REVOKED)
    assert evaluate(project).of("after1", "all").state == "stale"


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("status", ["none", "ended", *STATUSES])
def test_one_statement_tells_who_is_hidden(tmp_path: Path, status: str, required: bool) -> None:
    said = USES.replace("uses =", f"required = {str(required).lower()}\nuses =")
    project = make_project(tmp_path / "toy", toml=TOML + said)
    uses = ("research",) if status == "limited" else ()
    ends = "2020-01-01" if status == "ended" else None
    if status != "none":
        set_consent(project, ["P1"], Statement("full", until="2999-01-01"))
        set_consent(project, ["P1"], Statement("full" if ends else status, uses, until=ends, form="form 4"))
    with project.catalog.read() as connection:
        why = missing_consents(connection, today(), required)
    found = mask_of(project)
    assert {(level, who) for level, ids in found.ids.items() for who in ids} == set(why)
    assert found.names_hidden("P1") == (status not in ("full", "limited") and (required or status != "none"))
    assert found.names_hidden("P2") == required


def test_quality_for_one_step_says_nothing_of_later_ones(tmp_path: Path) -> None:
    project = project_of(tmp_path)
    make_all(project)
    add_qc(project, [QcEntry("specimen", "S1", "qc_fail", "low yield", step="after1")])
    assert reasons(project) == {} and ct("-C", project.root, "path", "after2/all").code == 0


def test_results_through_a_dropped_input_are_read_by_nobody(tmp_path: Path) -> None:
    project = project_of(tmp_path, after1="commerce")
    make_all(project)
    set_consent(project, ["P1"], RESEARCH)
    steps = project.root / "steps" / "toy.py"
    own = steps.read_text().replace('inputs={"before": "joined"}', 'inputs={"before": "merged"}')
    steps.write_text(own.replace('table = call.one("before")["table"].read_text()', 'table = str(call.many("before"))'))
    project = again(project)
    assert evaluate(project).of("after1", "all").state == "stale"
    told = ct("-C", project.root, "path", "after1/all").err
    assert "1 patient in it whose consent does not allow commerce today" in told
    asked = "SELECT folder FROM artifacts WHERE step = 'after1'"
    assert json.loads(ct("-C", project.root, "query", asked, "--json").out) == [{"folder": None}]
    asked = "SELECT * FROM results_history WHERE step = 'after1'"
    assert json.loads(ct("-C", project.root, "query", asked, "--json").out) == []
    make_all(project)
    assert ct("-C", project.root, "path", "after1/all").code == 0


def test_results_through_a_step_that_is_gone_are_read_by_nobody(tmp_path: Path) -> None:
    """Nobody can tell who is inside what its result was made from."""
    project = project_of(tmp_path)
    make_all(project)
    steps = project.root / "steps" / "toy.py"
    steps.write_text(steps.read_text().replace("def joined(", "def together(").replace('"joined"', '"together"'))
    project = again(project)
    assert ct("-C", project.root, "path", "after1/all").code == 0, "everybody may be used"
    set_consent(project, ["P1"], REVOKED)
    refused = ct("-C", project.root, "path", "after1/all")
    assert refused.code == 2 and "is excluded" in refused.err and "S1" not in refused.err
    asked = "SELECT folder FROM artifacts WHERE step IN ('after1', 'after2')"
    assert json.loads(ct("-C", project.root, "query", asked, "--json").out) == [{"folder": None}] * 2
    make_all(again(project))
    assert "S1" not in table(again(project), "after2")


def test_logs_of_failed_calls_before_a_revocation_are_hidden(tmp_path: Path) -> None:
    """Nobody can tell who was inside; what was printed since then is shown, but for lines that name them."""
    project = project_of(tmp_path)
    steps = project.root / "steps" / "toy.py"
    prints = (
        "    print([one['n'].read_text() for one in call.many('specimens')])\n    print('not S1 today')\n    1 / 0\n"
    )
    steps.write_text(steps.read_text().replace("    rows = [", f"{prints}    rows = ["))
    project = again(project)
    make_all(project)
    make(project, "joined", "all")
    assert "F 11 ACGT" in ct("-C", project.root, "logs", "joined/all").out
    set_consent(project, ["P1"], REVOKED)
    refused = ct("-C", project.root, "logs", "joined/all")
    assert refused.code == 2 and "is excluded: it printed this before" in refused.err and refused.out == ""
    assert "F 11 ACGT" in ct("-C", project.root, "logs", "joined/all", "--excluded", "--reason", "audit").out
    with project.catalog.read() as connection:
        assert connection.execute(select(func.count()).where(event.c.kind == "disclose")).scalar() == 1
    make(project, "joined", "all")
    now = ct("-C", project.root, "logs", "joined/all")
    assert now.code == 0 and "ZeroDivisionError" in now.out and "M 11" in now.out and "F 11" not in now.out
    assert "S1" not in now.out and now.out.endswith("\n1 × somebody who may not be used\n")
