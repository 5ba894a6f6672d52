"""QC: append-only events, one step only, batches that touch nobody else's, sheets, and what steps say themselves."""

import json
from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.event_log import check_chain
from ctcore.catalog.tables import event, qc_event, qc_resolution
from ctcore.cohorts.lookup import find_node
from ctcore.config.qc_and_consent import KINDS
from ctcore.errors import ProjectError, SheetError, Usage
from ctcore.governance.qc import (
    Choice,
    QcEntry,
    add,
    entities_where,
    history,
    read_qc_sheet,
    resolve,
    status_of,
    statuses,
)
from ctcore.intake.raw_files import look
from ctcore.lineage.explain import why
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import STEPS, TOML, again, assay, make, make_all, make_project, reasons
from tests.helpers.shell import ct

pytestmark = pytest.mark.usefixtures("catalog_url")
CELLS = (
    assay("P1", "S1", "A1", sex="F", age="40", library="FC7"),
    assay("P1", "S1", "A2", sex="F", age="40", library="FC8"),
    assay("P2", "S2", "A3", sex="M", age="50", library="FC7"),
)
SAYS = (
    'return {"letters": n}',
    'return {"letters": n, "qc": call.file("reads").read_text().split()[0], "qc_reason": "as the reads say"}',
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two patients, three assays on two flow cells, everything made."""
    made = make_project(tmp_path / "toy", CELLS)
    make_all(made)
    return made


def said(project: Project, node: str) -> str:
    return why(project, find_node(project, node)).text


def of(who: str, kind: str = "qc_fail", reason: str = "low yield", step: str | None = None) -> QcEntry:
    level, _, name = who.partition("/")
    return QcEntry(level, name, kind, reason, step)


def status(project: Project) -> dict[str, str]:
    return {name: found for name, found, _ in statuses(project)}


def state(project: Project, node: str) -> str:
    asset, _, key = node.partition("/")
    return evaluate(project).of(asset, key).state


def rows(project: Project) -> tuple[int, int]:
    with project.catalog.read() as connection:
        counted = [len(connection.execute(select(table)).all()) for table in (qc_event, qc_resolution)]
    return counted[0], counted[1]


def test_the_worst_of_the_open_events_holds(project: Project) -> None:
    for kind, worst in (("qc_warn", "warn"), ("superseded", "censored"), ("contamination", "fail")):
        add(project, [of("assay/A1", kind)])
        assert status(project) == {"assay/A1": worst}
    resolve(project, Choice(entity=("assay", "A1"), kind="contamination"), "wrong tube")
    assert status(project) == {"assay/A1": "censored"}
    assert status_of([]) == "pass"


def test_a_warning_leaves_an_entity_usable(project: Project) -> None:
    add(project, [of("assay/A1", "qc_warn"), of("patient/P2", "batch_effect_flagged")])
    assert reasons(project) == {} and status(project) == {"assay/A1": "warn", "patient/P2": "warn"}


def test_nothing_is_overwritten_by_resolving(project: Project) -> None:
    add(project, [of("assay/A1")])
    resolve(project, Choice(entity=("assay", "A1")), "counted twice")
    add(project, [of("assay/A1", reason="again")])
    found = history(project, ("assay", "A1"))
    assert [(one["reason"], one["resolved_reason"]) for one in found] == [
        ("low yield", "counted twice"),
        ("again", None),
    ]
    with project.catalog.read() as connection:
        events = [dict(row) for row in connection.execute(select(event).order_by(event.c.seq)).mappings()]
    kinds = [one["kind"] for one in events]
    assert check_chain(iter(events)) == []
    assert kinds[-3:] == ["censor", "release", "censor"]


def test_who_was_resolved_once_cannot_be_again(project: Project) -> None:
    number = add(project, [of("assay/A1")]).events[0][0]
    resolve(project, Choice(event=number), "counted twice")
    with pytest.raises(Usage, match="nothing to resolve"):
        resolve(project, Choice(event=number), "once more")


def test_of_several_open_events_one_has_to_be_named(project: Project) -> None:
    add(project, [of("assay/A1"), of("assay/A1", "contamination")])
    with pytest.raises(Usage, match=r"(?s)2 open events.*--event 1: qc_fail.*--event 2: contamination"):
        resolve(project, Choice(entity=("assay", "A1")), "fine")
    assert rows(project) == (2, 0)


def test_every_problem_is_said_at_once_and_nothing_is_written(project: Project) -> None:
    wrong = [
        of("assay/A1"),
        of("assay/A9"),
        of("assay/A2", "contaminated"),
        of("patient/P1", "library_prep_failed"),
        of("assay/A3", reason=" "),
        of("assay/A3", step="mergd"),
    ]
    with pytest.raises(Usage) as caught:
        add(project, wrong)
    for words in (
        "no assay 'A9' is registered",
        "assay/A2: no kind 'contaminated'; did you mean 'contamination'?",
        "patient/P1: library_prep_failed is said of assay only",
        "assay/A3: say why",
        "no step 'mergd'; did you mean 'merged'?",
    ):
        assert words in str(caught.value)
    assert rows(project) == (0, 0)


def test_a_sheet_is_taken_whole_or_not_at_all(project: Project, tmp_path: Path) -> None:
    sheet = tmp_path / "qc.tsv"
    sheet.write_text(
        "level\tid\tkind\treason\nassay\tA1\tcontamination\tDNA\nassay\tA7\tqc_fail\tx\nlane\tL1\tqc_fail\tx\n"
    )
    told = ct("-C", project.root, "qc", "add", "--from", sheet)
    assert told.code == 1 and "row 3: no assay 'A7'" in told.err and "row 4: 'lane' is no level" in told.err
    assert rows(project) == (0, 0)
    sheet.write_text("level,id,kind,reason,analysis\n".replace(",", "\t") + "assay\tA1\tcontamination\tDNA\tmerged\n")
    assert ct("-C", project.root, "qc", "add", "--from", sheet).code == 0
    assert (state(project, "counted/A1"), reasons(project)["merged/S1"]) == ("fresh", ["member-removed"])
    with pytest.raises(SheetError, match=r"row 2: assay/A1 is contamination for merged already"):
        sayings, _ = read_qc_sheet(sheet)
        add(project, sayings, scope=f"sheet {project.recorded(sheet)}")


def test_a_sheet_without_its_columns_says_which(tmp_path: Path) -> None:
    sheet = tmp_path / "qc.csv"
    sheet.write_text("level,id,knd\nassay,A1,x\n")
    with pytest.raises(SheetError) as caught:
        read_qc_sheet(sheet)
    for words in ("no column kind", "no column reason", "no column 'knd'; did you mean 'kind'?"):
        assert words in str(caught.value)


def test_a_flow_cell_is_censored_and_released_alone(project: Project) -> None:
    add(project, [of("assay/A1", "contamination", "by hand")])
    where = (
        "-C",
        project.root,
        "qc",
        "add",
        "--where",
        "assay.library=FC7",
        "sequencing_run_failed",
        "--reason",
        "leak",
    )
    assert ct(*where).code == 0
    assert (state(project, "counted/A1"), state(project, "counted/A2"), state(project, "counted/A3")) == (
        *("excluded", "fresh"),
        "excluded",
    )
    assert "2 had it already" in ct(*where).err
    done = ct("-C", project.root, "qc", "resolve", "--where", "assay.library = FC7", "--reason", "it was the other one")
    assert done.code == 0 and "resolved for 2" in done.err
    assert state(project, "counted/A3") == "fresh"
    assert "contamination" in said(project, "counted/A1") and "leak" not in said(project, "counted/A1")


def test_an_assay_that_joins_a_bad_flow_cell_joins_the_batch(project: Project) -> None:
    _, who = entities_where(project, "assay.library=FC8")
    assert who == ["A2"]
    first = add(project, [of("assay/A2")], scope="where assay.library=FC8")
    second = add(project, [of("assay/A2"), of("assay/A3")], scope="where assay.library=FC8")
    assert [name for _, name in first.events] == ["assay/A2"]
    assert ([name for _, name in second.events], second.already) == (["assay/A3"], 1)


def test_a_batch_is_named_by_a_column_that_there_is(project: Project) -> None:
    for where, words in (
        ("assay.libary=FC7", "did you mean 'assay.library'"),
        ("assay.library", "write assay.COLUMN=VALUE"),
        ("assay.library=FC9", "nobody has assay.library = 'FC9'"),
    ):
        with pytest.raises(Usage, match=words):
            entities_where(project, where)


def test_what_was_said_at_once_ends_at_once(project: Project) -> None:
    act = add(project, [of("assay/A1"), of("assay/A3")]).act
    add(project, [of("assay/A3", "contamination")])
    assert len(resolve(project, Choice(act=act), "a slip").events) == 2
    assert status(project) == {"assay/A3": "fail"}


def test_censoring_for_a_step_excludes_from_it_and_above(project: Project) -> None:
    add(project, [of("assay/A1", step="counted")])
    assert state(project, "counted/A1") == "excluded" and state(project, "counted/A2") == "fresh"
    assert reasons(project)["merged/S1"] == ["member-removed"]
    assert "assay A1: qc_fail for counted only" in said(project, "merged/S1")
    assert status(project) == {"assay/A1": "pass"}


def test_censoring_for_a_cohort_step_leaves_others_alone(project: Project) -> None:
    add(project, [of("specimen/S1", "superseded", "normal tissue", step="joined")])
    assert state(project, "counted/A1") == "fresh" and state(project, "merged/S1") == "fresh"
    assert reasons(project) == {"joined/all": ["member-removed"]}
    assert "specimen S1: superseded for joined only" in said(project, "joined/all")
    assert make_all(project) == {"joined/all": "made"} and reasons(project) == {}


def test_a_specimen_without_usable_assay_is_excluded_in_words(project: Project) -> None:
    add(project, [of("assay/A3", step="merged")])
    assert said(project, "merged/S2").startswith("merged/S2 is excluded: assay A3: qc_fail for merged only")
    add(project, [of("assay/A1"), of("assay/A2")])
    assert said(project, "merged/S1").count("assay A1: qc_fail") == 1, "barred from both steps, for one cause"
    assert state(project, "counted/A3") == "fresh"


def test_own_kinds_and_their_levels_are_declared_in_ct_toml(tmp_path: Path) -> None:
    toml = TOML + '\n[qc.kinds.swapped]\nlevels = ["specimen"]\nstatus = "censored"\n'
    project = make_project(tmp_path / "toy", toml=toml)
    make_all(project)
    add(project, [of("specimen/S1", "swapped")])
    assert status(project) == {"specimen/S1": "censored"} and state(project, "merged/S1") == "excluded"
    assert set(KINDS) < set(project.settings.qc_kinds)


def test_problems_of_qc_and_consent_in_ct_toml_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "ct.toml").write_text(
        TOML + '[qc.kinds.a]\nlevels = ["lane"]\nstatus = "fail"\n[qc.kinds.b]\nstatus = "bad"\nlevel = "x"\n'
        '[consent]\nuse = "profit"\nuses = ["research"]\n'
    )
    with pytest.raises(ProjectError) as caught:
        _ = Project.find(tmp_path).settings
    for words in (
        "[qc.kinds.a] levels = ['lane']",
        "[qc.kinds.b] status = 'bad'",
        "[qc.kinds.b]: unknown key 'level'; did you mean 'levels'?",
        "[consent] use = 'profit' is not among the uses: 'research'",
    ):
        assert words in str(caught.value)


def saying(tmp_path: Path, **verdicts: str) -> Project:
    """The step `counted` says of each assay what its reads begin with."""
    project = make_project(tmp_path / "says", CELLS, steps=STEPS.replace(*SAYS))
    for who in ("A1", "A2", "A3"):
        (project.root / f"reads/{who}.txt").write_text(f"{verdicts.get(who, 'pass')} reads of {who}\n")
    look(project)
    return project


def test_what_a_step_says_of_its_entity_lands_with_its_result(tmp_path: Path) -> None:
    project = saying(tmp_path, A1="fail", A2="warn")
    make(project, "counted")
    assert status(project) == {"assay/A1": "fail", "assay/A2": "warn"}
    assert said(project, "counted/A1").endswith("as the reads say")
    assert [state(project, f"counted/{who}") for who in ("A1", "A2", "A3")] == ["excluded", "fresh", "fresh"]
    with project.catalog.read() as connection:
        found = connection.execute(select(event.c.kind, event.c.body).order_by(event.c.seq.desc()).limit(5)).all()
    assert {"censor", "warn"} <= {row.kind for row in found}
    assert json.loads(next(row.body for row in found if row.kind == "censor"))["source"] == "step counted"


def test_a_call_whose_record_fails_leaves_no_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = saying(tmp_path, A1="fail")

    def broken(*_: object) -> None:
        raise RuntimeError("the power went")

    monkeypatch.setattr("ctcore.execution.ledger._said", broken)
    with pytest.raises(RuntimeError, match="the power went"):
        make(project, "counted", "A1")
    assert rows(project) == (0, 0) and state(project, "counted/A1") == "missing"  # its lease is free
    monkeypatch.undo()
    assert [one.state for one in make(project, "counted", "A1")] == ["hit"]
    assert status(project) == {"assay/A1": "fail"}


def test_a_steps_qc_ends_when_it_is_made_again_otherwise(tmp_path: Path) -> None:
    project = saying(tmp_path, A2="warn")
    make(project, "counted")
    (project.root / "reads/A2.txt").write_text("pass reads of A2\n")
    look(project)
    make(project, "counted")
    assert status(project) == {}
    (project.root / "reads/A2.txt").write_text("warn reads of A2\n")
    look(project)
    assert "hit" in [one.state for one in make(project, "counted")]
    assert status(project) == {"assay/A2": "warn"}
    (project.root / "reads/A2.txt").write_text("pass reads of A2\n")
    look(project)
    make(project, "counted")
    why = [one["resolved_reason"] for one in history(project, ("assay", "A2"))]
    assert why == ["made again", "an earlier result is current again"]


def test_a_resolved_qc_is_not_repeated_by_the_same_result(tmp_path: Path) -> None:
    project = saying(tmp_path, A1="fail")
    make(project, "counted")
    resolve(project, Choice(entity=("assay", "A1")), "looked at by hand: fine")
    assert make_all(project)["merged/S1"] == "made"
    make(project, "counted")
    assert status(project) == {} and reasons(again(project)) == {}


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ('{"qc": "bad"}', "qc = 'bad'; it is one of pass, warn, censored, fail"),
        ('{"qc": "fail"}', "without a reason"),
        ('{"qc_reason": "dirty"}', "qc_reason without qc"),
    ],
)
def test_a_step_with_half_a_qc_fails_and_publishes_nothing(tmp_path: Path, returned: str, words: str) -> None:
    project = make_project(tmp_path / "half", CELLS, steps=STEPS.replace(SAYS[0], f"return {returned}"))
    found = make(project, "counted", "A1")
    assert found[0].state == "failed" and words in found[0].why
    assert rows(project) == (0, 0)


def test_the_list_and_the_history_are_for_programs_too(project: Project) -> None:
    told = ct("-C", project.root, "qc", "add", "assay/A1", "contamination", "--reason", "DNA", "--source", "lab")
    assert (told.code, told.out) == (0, "event\tentity\n1\tassay/A1\n")
    ended = ct("-C", project.root, "qc", "resolve", "--event", "9", "--reason", "no")
    assert ended.code == 2 and "nothing to resolve: no such event 9 is open" in ended.err
    warned = ct("-C", project.root, "qc", "add", "assay/A2", "qc_warn", "--reason", "low", "--json")
    assert json.loads(warned.out) == {"act": 2, "events": [{"event": 2, "entity": "assay/A2"}]}
    ended = ct("-C", project.root, "qc", "resolve", "--act", "2", "--reason", "no", "--json")
    assert json.loads(ended.out)["events"] == [{"event": 2, "entity": "assay/A2"}]
    listed = json.loads(ct("-C", project.root, "qc", "list", "--json").out)
    assert [(one["entity"], one["status"], one["events"][0]["source"]) for one in listed] == [
        ("assay/A1", "fail", "lab")
    ]
    found = json.loads(ct("-C", project.root, "qc", "history", "assay/A1", "--json").out)
    assert found[0]["resolved_at"] is None
    assert "no assay 'A8' is registered" in ct("-C", project.root, "qc", "history", "assay/A8").err


def test_a_call_that_names_nobody_says_how_to(project: Project) -> None:
    for arguments in (
        ("add",),
        ("add", "assay/A1"),
        ("add", "contamination"),
        ("resolve",),
        ("resolve", "contamination"),
    ):
        assert ct("-C", project.root, "qc", *arguments, "--reason", "x").code == 2
    assert rows(project) == (0, 0)
