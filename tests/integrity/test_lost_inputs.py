"""What a result was made from may be lost with the catalog. Who is inside is then unknown, and it counts as anybody."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ctcore.deletion.purge_plan import plan
from ctcore.governance.consent import Statement, set_consent
from ctcore.governance.qc import QcEntry
from ctcore.governance.qc import add as add_qc
from ctcore.inputs.current import forget
from ctcore.integrity.recover import recover
from ctcore.lineage.containment import containment_of
from ctcore.model.node import name_of
from ctcore.project import Project
from tests.deletion.test_purge import REVOKED, STEPS, built, cohort, end, holders, word
from tests.helpers.kit import TOML, add, again, make_all, make_project
from tests.helpers.shell import ct


def without(project: Project, *folders: str) -> Project:
    """The catalog is lost, and with it these folders of the store; then recovered."""
    project.catalog.engine.dispose()
    for path in project.root.glob("catalog.db*"):
        path.unlink()
    for folder in folders:
        shutil.rmtree(project.store.root / folder)
    forget()
    done = recover(again(project))
    assert bool(done.lost) == bool(folders)
    return again(project)


@pytest.fixture
def made(tmp_path: Path) -> Project:
    """Three patients, and heard → merged → joined → few → report of all."""
    return built(tmp_path / "toy", [[1], [1], [1]])


COPIED = STEPS.replace(
    "{len(call.one('all')['words'].read_text().splitlines()) > 3}", "{call.one('all')['words'].read_text()}"
)
COPIED = COPIED.replace(
    'call.out("said").write_text(', 'print(call.one("n")["n"].read_text())\n    call.out("said").write_text('
).replace("def report(call: Call) -> None:", "def report(call: Call) -> dict[str, str]:")
COPIED += '    return {"all": call.one("n")["n"].read_text()}\n'


@pytest.mark.parametrize("how", ["revoked", "limited"])
def test_a_result_of_lost_results_is_given_to_nobody(tmp_path: Path, how: str) -> None:
    """`few` and `report` contain, and print, all that `joined` contained."""
    toml = f"{TOML}\n[consent]\nuses = ['research', 'teaching']\n[consent.steps]\n"
    toml += "".join(f"{step} = 'research'\n" for step in ("heard", "merged", "joined", "few", "report"))
    project = make_project(tmp_path / "toy", cohort(tmp_path / "toy", [[1], [1], [1]]), steps=COPIED, toml=toml)
    make_all(project)
    project = without(project, "joined")
    assert word("P1") in Path(ct("-C", project.root, "path", "few/all").out.strip(), "n.txt").read_text()
    set_consent(project, ["P1"], REVOKED if how == "revoked" else Statement("limited", uses=("teaching",), form="f"))
    for what in (["path", "report/all"], ["trace", "report/all"], ["path", "few/all"], ["logs", "few/all"]):
        said = ct("-C", project.root, *what)
        assert said.code == 2 and "who is in it is unknown" in said.err and "ct run" in said.err, (what, said)
    reading = ["show report/all", "why report/all", "logs report/all", "diff report/all@11 report/all@11"]
    reading += ["status", "stale", "export -", "export --wide assay --format json -", "query", "impact few/all"]
    reading += ["trace --json report/all", "plan"]
    for line in reading:
        words = [*line.split(), *(["SELECT * FROM facts"] if line == "query" else [])]
        said = ct("-C", project.root, *words)
        assert f"{word('P1')}A100" not in said.out + said.err, (line, said)
    make_all(again(project))
    assert ct("-C", project.root, "path", "report/all").code == 0


def test_quality_of_anybody_holds_it_back_too(made: Project) -> None:
    project = without(made, "joined")
    add_qc(project, [QcEntry("assay", "A100", "qc_fail", "contaminated")])
    said = ct("-C", project.root, "path", "report/all")
    assert said.code == 2 and "who is in it is unknown" in said.err


def test_a_purge_removes_what_nobody_knows_the_inputs_of(made: Project) -> None:
    project = without(made, "joined")
    set_consent(project, ["P1"], REVOKED)
    assert "2 makings more may contain it" in ct("-C", project.root, "impact", "P1").err
    rows = {row.what: row.why for row in plan(again(project), "P1").rows}
    assert "may contain the patient" in rows["few"] and "may contain the patient" in rows["report"]
    end(again(project), "P1")
    assert not list(project.store.root.glob("report/all/*")) and not list(project.store.root.glob("few/all/*"))
    said = ct("-C", project.root, "purge", "--check", "1")
    assert said.code == 0, said


def test_once_they_are_made_again_their_results_are_known(made: Project) -> None:
    """The same bytes come of them, so what was made from those has its source again."""
    project = without(made, "heard/A100", "merged/S20")
    make_all(project)
    set_consent(again(project), ["P0"], REVOKED)
    assert ct("-C", project.root, "path", "merged/S10").code == 0
    goes = plan(again(project), "P0").makings.values()
    assert {name_of(one.node) for one in goes} == {"heard/A000", "merged/S00", "joined/all", "few/all", "report/all"}


def test_a_recovery_says_what_was_made_of_lost_results(made: Project) -> None:
    project = without(made)
    for path in (*project.root.glob("catalog.db*"), project.store.root / "joined" / "all"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    forget()
    said = ct("-C", project.root, "recover")
    assert said.code == 3 and "1 making has a source that is lost: who is inside is unknown" in said.err


kept = st.lists(st.sampled_from(["heard/A000", "heard/A100", "merged/S00", "merged/S10", "joined", "few"]), unique=True)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(gone=kept, victim=st.sampled_from(["P0", "P1"]), stages=st.integers(1, 2))
@example(gone=["joined"], victim="P1", stages=2)
@example(gone=["heard/A000", "merged/S10", "few"], victim="P0", stages=1)
def test_whatever_is_lost_what_contained_a_person_goes(
    tmp_path_factory: pytest.TempPathFactory, gone: list[str], victim: str, stages: int
) -> None:
    """Against what the ledger knew before the loss."""
    project = built(tmp_path_factory.mktemp("lost") / "toy", [[1], [1]], stages)
    with project.catalog.read() as connection:
        inside = containment_of(project, connection, victim).makings.values()
    project = without(project, *gone)
    set_consent(project, [victim], REVOKED)
    for one in inside:
        if one.current:
            said = ct("-C", project.root, "path", name_of(one.node))
            assert said.code in (1, 2) and not said.out, one
    end(again(project), victim)
    assert [one for one in inside if (project.store.root / one.folder).exists()] == []


def test_unrecorded_results_of_a_step_that_is_gone_go(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", cohort(tmp_path / "toy", [[1], [1]]), steps=STEPS)
    before = (project.root / "provenance.jsonl").read_bytes()
    make_all(project)
    project.catalog.engine.dispose()
    (project.root / "provenance.jsonl").write_bytes(before)
    project = without(project)
    assert ct("-C", project.root, "recover", "--accept-loss", "--reason", "the forms were looked at").code in (0, 3)
    for path in (project.root / "steps").glob("*.py"):
        path.write_text(path.read_text().replace("joined", "united"))
    set_consent(again(project), ["P1"], REVOKED)
    end(again(project), "P1")
    assert holders(project.root, "P1") == []


def test_what_was_made_of_an_unregistered_entity_goes(tmp_path: Path) -> None:
    """Whose it is, nobody can tell."""
    rows = cohort(tmp_path / "toy", [[1], [2]])
    project = make_project(tmp_path / "toy", rows[:2], steps=STEPS)
    add(project, rows)
    make_all(again(project))
    journal = project.root / "provenance.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    lost = [line for line in lines if b"A101" in line and b'"kind":"register"' in line]
    assert lost
    journal.write_bytes(b"".join(line for line in lines if line not in lost))
    project = without(project)
    assert ct("-C", project.root, "recover", "--accept-loss", "--reason", "the forms were looked at").code in (0, 3)
    set_consent(again(project), ["P1"], REVOKED)
    end(again(project), "P1")
    assert not list(project.store.root.glob("heard/A101/*/words.txt"))
    assert holders(project.root, "P1") == []


def test_a_list_of_consents_says_that_some_may_be_lost(made: Project) -> None:
    """An empty list would read as if nobody had revoked, just when it is compared with the forms."""
    set_consent(made, ["P1"], REVOKED)
    made.catalog.engine.dispose()
    journal = made.root / "provenance.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    project = without(made)
    for command in (["consent", "list"], ["consent", "history"], ["qc", "list"]):
        said = ct("-C", project.root, *command)
        assert said.code == 0 and "ct recover --accept-loss" in said.err, said
