"""The end of a consent: all that contains the person goes, nothing else does, and a crash at any step loses nothing."""

import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from ctcore.catalog.tables import artifact, attempt, entity, materialization, output, purge, result, tombstone
from ctcore.cohorts.registry import unreported_nodes
from ctcore.deletion.proof import check, purge_findings
from ctcore.deletion.purge import list_purges, pending_purges, remove
from ctcore.deletion.purge_plan import plan
from ctcore.errors import SheetError, Usage
from ctcore.governance.consent import Record, Statement, restore, set_consent
from ctcore.inputs.current import forget
from ctcore.intake.register import register
from ctcore.intake.results import ResultEntry, analysis_of, record
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.integrity.verify import verify
from ctcore.project import Project
from ctcore.projects.leases import take
from ctcore.staleness.verdicts import evaluate
from ctcore.store.store import Store
from ctcore.util.clock import today
from tests.helpers.kit import TOML, add, again, assay, make_all, make_project, reasons, write_sheet
from tests.helpers.shell import ct, quiet_dagster

REVOKED = Statement("revoked", form="withdrawal form 12")


def decision() -> Record:
    """Of today: a constant would be older than a revocation after midnight."""
    return Record("ethics committee", "2026/114", today(), ("Ada", "Grace"))


# What a person gave is a word of its own in every file that contains them: who is inside can be read from the bytes.
STEPS = """
import os

from ctcore.step import Call, step

@step(level="assay", files=["reads"], columns=["assay.library"], outputs={"words": "words.txt"})
def heard(call: Call) -> dict[str, str]:
    text = call.file("reads").read_text()
    os.write(1, text.encode())
    call.out("words").write_text(f"{text}{call.column('assay.library')}\\n")
    return {"heard": text}

@step(level="specimen", inputs={"some": "heard"}, outputs={"words": "words.txt"})
def merged(call: Call) -> None:
    call.out("words").write_text("".join(source["words"].read_text() for source in call.many("some")))

@step(level="cohort", inputs={"some": "merged"}, outputs={"words": "words.txt"})
def joined(call: Call) -> None:
    call.out("words").write_text("".join(source["words"].read_text() for source in call.many("some")))

@step(level="cohort", inputs={"all": "joined"}, outputs={"n": "n.txt"})
def few(call: Call) -> None:
    call.out("n").write_text(f"{len(call.one('all')['words'].read_text().splitlines()) > 3}\\n")

@step(level="cohort", inputs={"n": "few"}, outputs={"said": "said.txt"})
def report(call: Call) -> None:
    call.out("said").write_text("few: " + call.one("n")["n"].read_text())
"""


def word(patient: str) -> str:
    """What is in everything that contains a person, and nowhere else."""
    return f"secret-of-{patient}-"


def cohort(root: Path, shape: list[list[int]]) -> list[dict[str, str]]:
    """Rows of a sheet: patients with specimens with so many assays, and their reads."""
    (root / "reads").mkdir(parents=True, exist_ok=True)
    rows = []
    for p, specimens in enumerate(shape):
        for s, assays in enumerate(specimens):
            for a in range(assays):
                name = f"A{p}{s}{a}"
                (root / "reads" / f"{name}.txt").write_text(f"{word(f'P{p}')}{name}\n")
                rows.append(assay(f"P{p}", f"S{p}{s}", name, library=f"{word(f'P{p}')}library"))
    return rows


def built(root: Path, shape: list[list[int]], stages: int = 1) -> Project:
    """A cohort that grew in stages, with everything made after each: earlier makings lie in the store."""
    rows = cohort(root, shape)
    stages = min(stages, len(rows))
    project = make_project(root, rows[: len(rows) // stages], steps=STEPS)
    make_all(project)
    for stage in range(1, stages):
        add(project, rows[: len(rows) * (stage + 1) // stages])
        make_all(project)
    return project


def files(root: Path) -> dict[str, bytes]:
    """Every file of the store and of work by its path, but what is only a cache."""
    found = [
        path
        for top in ("store", "work")
        for path in (root / top).rglob("*")
        if path.is_file() and path.name != ".witness"
    ]
    return {str(p.relative_to(root)): p.read_bytes() for p in found if "mirror" not in p.parts}


def versions(project: Project) -> dict[str, str]:
    with project.catalog.read() as connection:
        rows = connection.execute(select(artifact.c.asset, artifact.c.partition, artifact.c.data_version))
        return {f"{asset}/{partition}": version for asset, partition, version in rows}


def end(project: Project, patient: str, raw: bool = False) -> None:
    set_consent(project, [patient], REVOKED)
    remove(project, patient, "letter of 3 May", patient, raw)


def holders(root: Path, patient: str) -> list[str]:
    """All files of a project, also the catalog's, that have the person's word in them; but the sheet and raw files."""
    found = [path for path in root.rglob("*") if path.is_file() and "reads" not in path.parts and path.suffix != ".csv"]
    return [str(path.relative_to(root)) for path in found if word(patient).encode() in path.read_bytes()]


shapes = st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=2), min_size=2, max_size=3)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shape=shapes, victim=st.integers(0, 2), stages=st.integers(1, 3), again_first=st.booleans())
@example(shape=[[1], [2, 1], [1]], victim=1, stages=3, again_first=False)
@example(shape=[[2], [1], [1]], victim=2, stages=2, again_first=True)
def test_all_that_contains_a_person_goes_and_all_else_stays(
    shape: list[list[int]], victim: int, stages: int, again_first: bool
) -> None:
    patient = f"P{victim % len(shape)}"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        project = built(root / "with", shape, stages)
        set_consent(project, [patient], REVOKED)
        if again_first:
            make_all(project)
        before = files(project.root)
        remove(project, patient, "asked", patient)
        forget()
        after = files(project.root)
        assert holders(project.root, patient) == []
        free = {path for path, text in before.items() if word(patient).encode() not in text}
        lost = {path for path in free - after.keys() if path.startswith("store/")}
        assert all(path.split("/")[1] in ("few", "report") or _beside(path, before, patient) for path in lost)
        assert {path: before[path] for path in free & after.keys()} == {p: after[p] for p in free & after.keys()}
        assert check(project, 1).findings == () and verify(project).findings == ()
        make_all(project)
        rest = [some for at, some in enumerate(shape) if f"P{at}" != patient]
        if rest:
            never = make_project(
                root / "never",
                [row for row in cohort(root / "never", shape) if row["patient_id"] != patient],
                steps=STEPS,
            )
            make_all(never)
            assert versions(project) == versions(never)
        assert check(project, 1).findings == () and holders(project.root, patient) == []


def _beside(path: str, before: dict[str, bytes], patient: str) -> bool:
    """A manifest lies beside what holds the word."""
    folder = path.rpartition("/")[0]
    return any(word(patient).encode() in text for other, text in before.items() if other.startswith(folder + "/"))


STEPS_OF_A_PURGE = ("os.remove", "os.rmdir", "os.rename", "os.chmod", "os.mkdir")


def killed_at(root: Path, number: int) -> bool:
    """Purge in a process of its own, which is killed -9 before its so manieth step; whether it came so far."""
    child = os.fork()
    if child == 0:
        try:
            _die_at(root, number)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _die_at(root: Path, number: int) -> None:
    from sqlalchemy import event as listening

    forget()
    project, left = Project.find(root), [number]

    def one_more(*_: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    listening.listen(project.catalog.engine, "commit", one_more)
    sys.addaudithook(lambda name, _: one_more() if name in STEPS_OF_A_PURGE else None)
    remove(project, "P1", "asked", "P1", raw=True)
    os._exit(0)


def test_a_killed_purge_claims_nothing_false_and_is_finished(tmp_path: Path) -> None:
    root = tmp_path / "first"
    project = built(root, [[1], [2]], stages=2)
    set_consent(project, ["P1"], REVOKED)
    project.catalog.engine.dispose()
    number, begun = 0, 0
    while True:
        forget()
        place = tmp_path / f"at-{number}"
        shutil.copytree(root, place)
        before, came = files(place), killed_at(place, number)
        forget()
        project = Project.find(place)
        if not came:
            assert check(project, 1).findings == (), "this one went through"
            break
        assert verify(project).findings == ()
        with project.catalog.read() as connection:
            rows = connection.execute(select(purge)).all()
        unfinished = bool(pending_purges(project))
        assert unfinished == bool(purge_findings(project)), "what is not done is said to be not done"
        if not rows:
            assert files(place) == before, "without a record nothing is touched"
        else:
            assert bool(check(project, 1).findings) == unfinished, "what is said to be done is done, and nothing else"
        if number % 2:
            make_all(project)
        remove(project, "P1", "asked", "P1", raw=True)
        assert check(project, 1).findings == () and holders(place, "P1") == []
        assert not (place / "reads" / "A100.txt").exists() and (place / "reads" / "A000.txt").exists()
        begun += unfinished
        project.catalog.engine.dispose()
        shutil.rmtree(place)
        number += 1 if number < 4 else 9
    assert begun > 5, "it was cut off while files were being removed"


@pytest.fixture
def project(tmp_path: Path, catalog_url: str) -> Project:
    """Two patients, everything made."""
    return built(tmp_path / "toy", [[1], [2]])


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(Usage) as said:
        call()
    return str(said.value)


def test_only_who_took_their_consent_back_is_purged(project: Project) -> None:
    for patient, words in (("P0", "consent is not taken back"), ("S00", "is a specimen"), ("P9", "no patient 'P9'")):
        assert words in refusal(lambda who=patient: plan(project, who))
    set_consent(project, ["P0"], Statement("pending"))
    assert "`ct consent set P0 revoked" in refusal(lambda: plan(project, "P0"))
    set_consent(project, ["P0"], Statement("withdrawn", form="letter"))
    assert plan(project, "P0")


def test_a_dry_run_and_a_wrong_confirmation_change_nothing(project: Project) -> None:
    set_consent(project, ["P1"], REVOKED)
    before, now = files(project.root), versions(project)
    rows = {(row.action, row.what): row for row in plan(project, "P1").rows}
    assert rows["remove", "heard"].number == 2 and rows["remove", "joined"].why == "contains the patient"
    assert rows["make again", "joined/all"] and rows["name", "reads/A100.txt"].why.endswith("--raw removes it")
    assert "--confirm P1" in refusal(lambda: remove(project, "P1", "asked", "P0"))
    assert "--reason" in refusal(lambda: remove(project, "P1", " ", "P1"))
    assert files(project.root) == before and versions(project) == now


def test_purged_results_say_so_and_are_never_reused(project: Project) -> None:
    end(project, "P1")
    verdict = evaluate(project).of("joined", "all")
    assert verdict.state == "missing" and "purged on" in verdict.why and "(purge 1)" in verdict.why
    assert evaluate(project).of("heard", "A100").state == "excluded"
    root = project.root
    assert "purged on" in ct("-C", root, "why", "joined/all").out
    shown = ct("-C", root, "show", "joined/all")
    assert "purged on" in shown.out and "words.txt" in shown.out
    why = ("--excluded", "--reason", "the request of 3 May")
    assert "purged on" in ct("-C", root, "trace", "joined/all", *why).out
    told = json.loads(ct("-C", root, "trace", "joined/all", "--json", *why).out)
    assert all("purged on" in one["purged"] for one in told["makings"] if one["node"] in ("joined/all", "merged/S10"))
    assert all(one["purged"] is None for one in told["makings"] if one["node"] == "merged/S00")
    assert ct("-C", root, "verify").code == 0


def test_who_kept_verdicts_follows_a_purge(project: Project) -> None:
    """The sensors' process has evaluated before; a new process reads all of it again."""

    def states() -> dict[str, list[tuple[str, str]]]:
        found = evaluate(project)
        return {step.name: [(one.partition, one.why) for one in found.listed(step.name)] for step in project.steps}

    set_consent(project, ["P1"], REVOKED)
    before = states()
    remove(project, "P1", "asked", "P1")
    followed = states()
    forget()
    assert followed == states() != before


def test_after_a_restored_consent_a_purged_call_is_made_again(project: Project) -> None:
    before = versions(project)
    end(project, "P1")
    make_all(project)
    restore(project, "P1", decision())
    assert register(project, write_sheet(project.root, cohort(project.root, [[1], [2]])))
    made = make_all(project)
    assert {node: how for node, how in made.items() if how == "hit"} == {}
    assert versions(project) == before and reasons(project) == {}
    assert check(project, 1).findings == () and verify(project).findings == ()
    set_consent(project, ["P1"], REVOKED)
    assert [one.number for one in remove(project, "P1", "asked again", "P1")] == [2]
    assert check(project, 1).findings == () == check(project, 2).findings
    assert ct("-C", project.root, "verify").code == 0


def test_what_is_taken_out_is_in_no_page_of_sqlites_file(tmp_path: Path) -> None:
    """Also where it was long, and lay in pages of its own."""
    rows = [row | {"library": word(row["patient_id"]) * 900} for row in cohort(tmp_path / "toy", [[2], [1]])]
    project = make_project(tmp_path / "toy", rows, steps=STEPS)
    make_all(project)
    assert "catalog.db" in " ".join(holders(project.root, "P0"))
    end(project, "P0")
    assert holders(project.root, "P0") == [] != holders(project.root, "P1")


def test_dagster_is_told_nothing_more_of_whoever_was_purged(project: Project) -> None:
    assert "P1" in unreported_nodes(project)["patient"]
    end(project, "P1")
    left = unreported_nodes(again(project))
    assert set(left["patient"]) == {"P0"} and not {"S10", "A100", "A101"} & {*left["specimen"], *left["assay"]}


def test_a_project_file_with_the_same_bytes_is_named_and_stays(project: Project) -> None:
    """It may be a lock, a list or a note that has them by chance."""
    (path,) = (project.store.root / "heard" / "A100").glob("*/words.txt")
    (project.root / "lock.txt").write_bytes(path.read_bytes())
    (project.root / "empty.txt").write_bytes(b"")
    end(project, "P1")
    assert (project.root / "lock.txt").exists() and (project.root / "empty.txt").exists()
    found = dict(check(again(project), 1).findings)
    assert list(found) == ["lock.txt"] and "yours to remove" in found["lock.txt"]


def test_nothing_is_purged_where_the_store_is_not_there(project: Project, tmp_path: Path) -> None:
    """A disk that is not mounted: what lies on it would stay, and the purge would say that it is gone."""
    set_consent(project, ["P1"], Statement("revoked", form="form 7"))
    project.store.root.rename(tmp_path / "elsewhere")
    words = ("purge", "P1", "--reason", "asked for", "--confirm", "P1")
    for command in (words, words[:2]):
        said = ct("-C", project.root, *command)
        assert said.code == 3 and "the store" in said.err and "is not there" in said.err
    (tmp_path / "elsewhere").rename(project.store.root)
    assert list_purges(project) == []


def test_verify_finds_a_journal_of_before_the_purge(project: Project) -> None:
    journal = project.root / "provenance.jsonl"
    before = journal.read_bytes()
    end(project, "P1")
    journal.write_bytes(before)
    ct("-C", project.root, "status")
    said = ct("-C", project.root, "verify")
    assert said.code == 3 and "not the events of the catalog" in said.out
    assert ct("-C", project.root, "recover").code == 0
    assert "not the events" not in ct("-C", project.root, "verify").out


def test_a_sheet_does_not_bring_back_what_was_purged(project: Project) -> None:
    end(project, "P1")
    with pytest.raises(SheetError, match=r"A100 was purged \(purge 1\); take the row out"):
        register(project, write_sheet(project.root, cohort(project.root, [[1], [2]])))
    register(project, write_sheet(project.root, cohort(project.root, [[1]])))
    with project.catalog.read() as connection:
        kept = dict(connection.execute(select(entity.c.id, entity.c.attributes)).all())
    assert kept["A100"] == "{}" and word("P0") in kept["A000"]


def test_a_required_column_is_blanked_and_the_schema_holds(tmp_path: Path, catalog_url: str) -> None:
    required = TOML.replace('sex = { enum = ["F", "M"] }', 'sex = { enum = ["F", "M"], required = true }')
    project = make_project(tmp_path / "toy", toml=required)
    make_all(project)
    end(project, "P1")
    assert ct("-C", project.root, "schema", "check").code == 0
    (project.root / "ct.toml").write_text(
        required.replace("[levels.specimen.columns]", 'bmi = "integer"\n\n[levels.specimen.columns]')
    )
    add(again(project), [assay("P2", "S2", "A3", sex="M", age="50")])


def test_content_that_is_the_same_without_the_person_stays(project: Project) -> None:
    """`few` says the same with and without P1: what is made from that tells nothing of P1."""
    set_consent(project, ["P0"], REVOKED)
    make_all(project)
    with project.catalog.read() as connection:
        few = connection.execute(
            select(materialization.c.data_version).where(materialization.c.asset == "few")
        ).scalars()
        assert len(set(few)) == 1
    rows = [row for row in plan(project, "P0").rows if row.action == "keep"]
    assert any(row.what.startswith("report/all") for row in rows)
    remove(project, "P0", "asked", "P0")
    assert evaluate(project).of("report", "all").state == "fresh" and check(project, 1).findings == ()


def test_no_purge_while_a_run_may_contain_the_patient(project: Project) -> None:
    set_consent(project, ["P1"], REVOKED)
    take(project, [("k" * 64, ("joined", "all"))], "run 1")
    assert "joined/all: being made now" in refusal(lambda: remove(project, "P1", "asked", "P1"))


def test_what_a_crash_left_of_the_person_goes_too(project: Project) -> None:
    """Published and not recorded, staged, and the log of a failure that names them."""
    store = project.root / "store"
    lone = store / "heard" / "A100" / ("0" * 16)
    lone.mkdir()
    (lone / "words.txt").write_text(word("P1"))
    other = store / "joined" / "all" / ("1" * 16)
    other.mkdir()
    (other / "ct.json").write_text(json.dumps({"members": [["specimen", "S00", "member"]], "inputs": []}))
    staged = Store(store).stage("merged", "S10", "a" * 64)
    (staged / "words.txt").write_text(word("P1"))
    end(project, "P1")
    assert not lone.exists() and not staged.exists() and holders(project.root, "P1") == []
    assert other.exists(), "others' leftovers are not ours to remove"


def test_errors_of_failed_calls_go_and_those_of_others_stay(tmp_path: Path, catalog_url: str) -> None:
    failing = STEPS.replace(
        "def few(call: Call) -> None:\n",
        'def few(call: Call) -> None:\n    os.write(1, call.one("all")["words"].read_bytes())\n'
        '    raise ValueError("of S10 and S00" if "P1" in call.one("all")["words"].read_text() else "of S00")\n',
    )
    project = make_project(tmp_path / "toy", cohort(tmp_path / "toy", [[1], [1]]), steps=failing)
    make_all(project)
    assert any("logs/few/" in name for name in holders(project.root, "P1"))
    set_consent(project, ["P1"], REVOKED)
    make_all(project)
    remove(project, "P1", "asked", "P1")
    assert holders(project.root, "P1") == [] and ct("-C", project.root, "verify").code == 0
    with project.catalog.read() as connection:
        assert connection.execute(select(attempt.c.error).order_by(attempt.c.id)).scalars().all() == [
            "purged",
            "ValueError: of S00",
        ]
    assert "ValueError: of S00" in ct("-C", project.root, "why", "few/all").out


def test_a_log_that_names_nobody_goes_by_what_its_call_had(tmp_path: Path) -> None:
    """What a step prints may be of a person, though no word of it tells."""
    failing = STEPS.replace(
        "def few(call: Call) -> None:\n",
        'def few(call: Call) -> None:\n    os.write(1, call.one("all")["words"].read_bytes()[::-1])\n    1 / 0\n',
    )
    project = make_project(tmp_path / "toy", cohort(tmp_path / "toy", [[1], [1]]), steps=failing)
    make_all(project)
    logs = project.work / "logs" / "few"
    before = {path for path in logs.rglob("*.log") if path.stat().st_size}
    set_consent(project, ["P1"], REVOKED)
    make_all(project)
    remove(project, "P1", "asked", "P1")
    after = {path for path in logs.rglob("*.log") if path.stat().st_size}
    assert before and after and not before & after, "what was printed since then is without them"


def test_recorded_results_and_roles_of_the_person_go_too(tmp_path: Path, catalog_url: str) -> None:
    declared = '\n[analyses.pathology]\nlevel = "assay"\n\n[analyses.pathology.columns]\nsaid = { required = true }\n'
    project = make_project(tmp_path / "toy", toml=TOML + declared)
    make_all(project)
    analysis = analysis_of(project, "pathology")
    listed = [ResultEntry(who, {"said": word(patient)}) for who, patient in (("A1", "P1"), ("A3", "P2"))]
    record(project, analysis, listed)
    assert "provenance.jsonl" in holders(project.root, "P1")
    end(project, "P1")
    assert holders(project.root, "P1") == [] and "provenance.jsonl" in holders(project.root, "P2")
    with project.catalog.read() as connection:
        assert connection.execute(select(result.c.facts)).scalars().all() == [f'{{"said":"{word("P2")}"}}']
    assert ct("-C", project.root, "verify").code == 0 and ct("-C", project.root, "schema", "check").code == 0


def test_check_finds_other_removals_and_what_came_back(project: Project) -> None:
    end(project, "P1")
    folder = next((project.root / "store" / "heard" / "A000").iterdir())
    os.chmod(folder, 0o755)
    (folder / "words.txt").unlink()
    found = check(project, 1).findings
    assert [("gone, and no purge removed it" in said) for _, said in found] == [True]
    with project.catalog.read() as connection:
        gone = (
            connection.execute(
                select(materialization.c.folder)
                .join(tombstone, tombstone.c.materialization == materialization.c.id)
                .where(materialization.c.asset == "joined")
            )
            .scalars()
            .first()
        )
    (project.root / "store" / str(gone)).mkdir(parents=True)
    assert any("exists, but purge 1 removed it" in said for _, said in check(project, 1).findings)
    assert "purge 1 has not removed everything; `ct purge --check 1`" in ct("-C", project.root, "verify").out
    with project.catalog.write() as writer:
        writer.execute(update(output).where(output.c.file == "n.txt").values(digest="0" * 64))
    assert any("the ledger and the event differ" in said for _, said in check(project, 1).findings)
    assert ct("-C", project.root, "purge", "--check", "1").code == 3
    assert "no purge 7" in ct("-C", project.root, "purge", "--check", "7").err


def test_redactions_are_vouched_for_and_nothing_else_differs(project: Project) -> None:
    end(project, "P1")
    assert ct("-C", project.root, "verify").code == 0
    journal = project.root / "provenance.jsonl"
    assert word("P1") not in journal.read_text() and word("P0") in journal.read_text()
    journal.write_text(journal.read_text().replace(word("P0"), "somebody-else-"))
    assert "was changed after it was written" in ct("-C", project.root, "verify").out


def test_purging_from_the_shell(project: Project) -> None:
    root = project.root
    set_consent(project, ["P1"], REVOKED)
    dry = ct("-C", root, "purge", "P1")
    assert dry.code == 0 and "nothing was removed; `ct purge P1 --reason TEXT --confirm P1`" in dry.err
    assert {row["action"] for row in json.loads(ct("-C", root, "purge", "P1", "--json").out)["rows"]} >= {"remove"}
    done = ct("-C", root, "purge", "patient/P1", "--reason", "letter", "--confirm", "P1", "--json")
    assert done.code == 0 and json.loads(done.out)[0]["number"] == 1
    assert "was left" in ct("-C", root, "purge", "P1", "--reason", "letter", "--confirm", "P1").err
    (root / "work" / "mirror").mkdir(exist_ok=True)  # as an evaluation of a larger cohort saves it again
    rows = json.loads(ct("-C", root, "purge", "P1", "--json").out)["rows"]
    assert {row["action"] for row in rows} == {"name"}
    assert "is left in the store" in ct("-C", root, "purge", "P1").err
    raw = ct("-C", root, "purge", "P1", "--raw").err
    assert "`ct purge P1 --raw --reason TEXT --confirm P1` does it" in raw, "raw files are there still"
    assert "letter" in ct("-C", root, "purge", "--list").out
    assert ct("-C", root, "purge").code == 2 and ct("-C", root, "purge", "P1", "--list").code == 2


def test_a_copied_ct_assets_of_an_older_ct_is_said_in_one_line(project: Project) -> None:
    set_consent(project, ["P1"], REVOKED)
    own = quiet_dagster(project.root) / "ct_assets"
    own.mkdir()
    (own / "launch.py").write_text("def run(): ...\n")
    done = ct("-C", project.root, "purge", "P1", "--reason", "letter", "--confirm", "P1")
    said = (
        f"Dagster's storage still tells of it; {own / 'launch.py'} is of another ct: it has no command wipe; `ct init"
    )
    assert done.code == 0 and [line for line in done.err.splitlines() if "Dagster" in line or "No such" in line] == [
        f"{said} {project.root}` brings the project's copy up to date; then the sensor `integrity` takes it out"
    ]
    assert ct("init", project.root).code == 0 and "def wipe(" in (own / "launch.py").read_text()


def test_impact_of_a_revoked_patient_names_only_on_record(project: Project) -> None:
    """Counts of everything, also of past makings; the names of others' nodes; and of the patient's own for a reason."""
    set_consent(project, ["P1"], REVOKED)
    make_all(project)
    root = project.root
    counted = ct("-C", root, "impact", "P1")
    rows = {line.split("\t")[1]: line.split("\t") for line in counted.out.splitlines()[1:]}
    assert rows["heard"][2] == "2" and rows["merged"][2] == "1"
    assert rows["joined"][2:5] == ["0", "0", "1"], "a past making lies in the store"
    listed = ct("-C", root, "impact", "P1", "--list")
    assert "joined/all" in listed.out and "A100" not in listed.out and "S10" not in listed.out
    assert "3 makings are not named: patient P1: consent revoked" in listed.err
    told = json.loads(ct("-C", root, "impact", "P1", "--json").out)
    assert told["withheld"] == 3 and all("A10" not in one["node"] for one in told["makings"])
    assert ct("-C", root, "impact", "P1", "--list", "--excluded").code == 2
    seen = ct("-C", root, "impact", "P1", "--list", "--excluded", "--reason", "the request of 3 May")
    assert "heard/A100" in seen.out and "the request of 3 May" in (root / "provenance.jsonl").read_text()
    remove(project, "P1", "asked", "P1")
    told = json.loads(ct("-C", root, "impact", "S10", "--json").out)
    assert all("purged on" in one["purged"] for one in told["makings"]) and told["former"] == 0


def test_a_specimen_that_was_moved_to_somebody_else_is_theirs(project: Project) -> None:
    rows = cohort(project.root, [[1], [2]])
    moved = [row | {"patient_id": "P0"} if row["specimen_id"] == "S10" else row for row in rows]
    register(project, write_sheet(project.root, moved), AllowedChanges(reparent=frozenset({"S10"})))
    set_consent(project, ["P1"], REVOKED)
    kept = [row for row in plan(project, "P1").rows if row.action == "keep"]
    assert [row.what for row in kept if "belonged to patient/P1" in row.why] == [
        "specimen/S10",
        "assay/A100",
        "assay/A101",
    ]
    before = files(project.root)
    remove(project, "P1", "asked", "P1")
    assert files(project.root) == before


def test_verify_says_what_a_purge_left_and_names_nobody(project: Project, tmp_path: Path) -> None:
    root = project.root
    set_consent(project, ["P1"], REVOKED)
    shutil.copytree(root / "store", tmp_path / "store", symlinks=True)
    remove(project, "P1", "asked", "P1")
    shutil.copytree(tmp_path / "store", root / "store", symlinks=True, dirs_exist_ok=True)
    said = ct("-C", root, "verify")
    assert said.code == 3 and not re.search(r"\b(P1|S1\d*|A1\d+)\b", said.out + said.err), said
    assert "purge 1 has not removed everything; `ct purge --check 1` says what to do" in said.out
    way = re.search(r"`ct (purge P1 [^`]*)` removes it", ct("-C", root, "purge", "--check", "1").out)
    assert way is not None and ct("-C", root, *way[1].replace("TEXT", "again").split()).code == 0
    assert ct("-C", root, "verify").code == 0
