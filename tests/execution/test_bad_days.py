"""What must not lead a verdict astray: unknown things in the ledger, clocks, others that ask or write meanwhile."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ctcore.integrity.verify
import ctcore.util.clock
from ctcore.errors import StepError
from ctcore.execution import ledger
from ctcore.inputs.current import forget
from ctcore.inputs.key import prepare
from ctcore.intake.raw_files import look
from ctcore.intake.register import register
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.integrity.verify import verify
from ctcore.model.node import Node
from ctcore.model.reasons import Verdict
from ctcore.planning.requests import ready_nodes, state_of_the_world
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import ROWS, STEPS, Inline, add, again, assay, make, make_all, make_project, reasons, write_sheet

both = pytest.mark.usefixtures("catalog_url")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two patients, three assays, everything made."""
    made = make_project(tmp_path / "toy")
    make_all(made)
    return made


def record(project: Project, node: Node, *more: tuple[str, str, str, str], text: str = "made", at: str = "1") -> Any:
    """Make a node by hand, from what it would get today and, as the ledger will have it, from these too."""
    step = project.steps[node[0]]
    call = prepare(project, step, [node[1]]).ready[node[1]]
    outputs = {name: output.file for name, output in step.outputs.items()}
    sidecar = {
        "node": list(node),
        "level": step.level,
        "key": call.key,
        "recipe": {name: getattr(call.recipe, name) for name in ("step", "code", "parameters", "environment")},
        "inputs": [*map(list, call.edges), *map(list, more)],
        "members": [],
        "outputs": outputs,
        "facts": {},
        "reason": "asked for",
        "started_at": at,
        "seconds": 0.0,
    }
    staged = project.store.stage(*node, call.key)
    for name in outputs.values():
        (staged / name).write_text(text)
    one = project.store.publish(staged, *node, call.key, sidecar, list(outputs.values()))
    ledger.record(project, [one])
    return one


def harm(project: Project, node: Node) -> None:
    for file in (project.store.root / node[0] / node[1]).glob("*/*.t*"):
        file.chmod(0o644)
        file.write_bytes(b"#" + file.read_bytes())
    verify(project, deep=False)


# Declarations that cannot be


def test_a_circle_of_steps_is_refused_with_the_circle_printed(tmp_path: Path) -> None:
    round_about = STEPS.replace('files=["reads"], ref', 'files=["reads"], inputs={"all": "merged"}, ref')
    with pytest.raises(StepError, match=r"circle: (counted → merged → counted|merged → counted → merged)"):
        _ = make_project(tmp_path / "toy", steps=round_about).steps


@pytest.mark.parametrize(
    ("said", "other"),
    [
        ('files=["reads"]', 'files=["reads", "reads"]'),
        ('references=["genome"]', 'references=["genome", "genome"]'),
        ('columns=["patient.sex"]', 'columns=["patient.sex", "patient.sex"]'),
        ('files=["reads"]', 'files=["reads"], inputs={"reads": "beside"}'),
        ('inputs={"counts": "counted"}', 'inputs={"patient.sex": "counted"}'),
        ('inputs={"counts": "counted"}', 'inputs={"reference:genome": "counted"}'),
    ],
)
def test_two_inputs_of_one_name_are_refused(tmp_path: Path, said: str, other: str) -> None:
    """In the ledger an input is known by its name."""
    beside = '\n\n@step(level="assay", outputs={"n": "n.txt"})\ndef beside(call: Call) -> None:\n    pass\n'
    steps = STEPS.replace(said, other, 1) + beside
    assert other in steps
    with pytest.raises(StepError, match=r"input|twice"):
        _ = make_project(tmp_path / "toy", steps=steps).steps


# What the ledger names and nobody knows


@both
@pytest.mark.parametrize(
    ("node", "edge", "kind"),
    [
        (("merged", "S1"), ("counts", "counted", "A99"), "member-removed"),
        (("merged", "S1"), ("counts", "tallied", "A1"), "member-removed"),
        (("counted", "A1"), ("reads", "assay", "A99"), "input"),
        (("counted", "A1"), ("reference:genome", "reference", "hg19"), "reference"),
        (("joined", "all"), ("specimens", "merged", "S99"), "member-removed"),
    ],
)
def test_an_input_that_is_unknown_by_now_is_named(
    tmp_path: Path, node: Node, edge: tuple[str, str, str], kind: str
) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    harm(project, node)
    record(project, node, (*edge, "0" * 64), text="made by hand")
    for opened in (project, again(project)):
        verdict = evaluate(opened).of(*node)
        assert (verdict.state, [(one.kind, one.node) for one in verdict.reasons]) == ("stale", [(kind, edge[1:])])


def test_an_input_whose_name_is_unknown_by_now_is_named(project: Project) -> None:
    harm(project, ("merged", "S1"))
    record(project, ("merged", "S1"), ("controls", "counted", "A3", "0" * 64), text="made by hand")
    verdict = evaluate(project).of("merged", "S1")
    assert ("stale", {("counted", "A3")}) == (verdict.state, {reason.node for reason in verdict.reasons})


def test_what_was_unknown_and_is_registered_later_is_known_then(project: Project) -> None:
    """A process that has asked before says what a new one says."""
    harm(project, ("merged", "S1"))
    record(project, ("merged", "S1"), ("counts", "counted", "A99", "0" * 64), text="made by hand")
    assert ("counted", "A99") in {reason.node for reason in evaluate(project).of("merged", "S1").reasons}
    add(project, [*ROWS, assay("P1", "S1", "A99", sex="F", age="40")])
    said = evaluate(project).of("merged", "S1")
    forget()
    shutil.rmtree(project.work / "mirror", ignore_errors=True)
    assert said == evaluate(again(project)).of("merged", "S1")


def test_what_was_made_from_a_step_that_is_gone_says_so(project: Project) -> None:
    steps = project.root / "steps/toy.py"
    steps.write_text(steps.read_text().replace("def counted(", "def tallied(").replace('"counted"', '"tallied"'))
    verdict = evaluate(again(project)).of("merged", "S2")
    said = {(reason.kind, reason.node) for reason in verdict.reasons}
    assert {("member-removed", ("counted", "A3")), ("member-added", ("tallied", "A3")), ("code", None)} <= said


# What becomes of a failure


def test_a_call_that_failed_and_then_succeeded_is_not_failing(project: Project) -> None:
    """Otherwise nobody would make it again by itself when its bytes are gone."""
    node = ("counted", "A1")
    harm(project, node)
    key = prepare(project, project.steps["counted"], ["A1"]).ready["A1"].key
    ledger.record_failures(project, [ledger.FailedCall(node, key, "no memory", None)], None)
    assert evaluate(project).of(*node).state == "failed"
    make(project, "counted", "A1", runner=Inline(project))
    harm(project, node)
    assert evaluate(project).of(*node).state == "lost"
    assert node in {verdict.node for verdict in ready_nodes(evaluate(project))}


# Nothing changes in silence


@both
def test_bytes_that_are_whole_again_are_an_event(tmp_path: Path) -> None:
    """Sensors and whoever keeps verdicts follow the events."""
    project = make_project(tmp_path / "toy")
    make_all(project)
    file = next((project.store.root / "counted" / "A1").glob("*/n.txt"))
    whole = file.read_bytes()
    harm(project, ("counted", "A1"))
    before = state_of_the_world(project)
    assert reasons(project)["counted/A1"] == ["bytes"]
    file.write_bytes(whole)
    verify(project, deep=False)
    assert reasons(project) == {}
    assert state_of_the_world(project) != before


@both
def test_a_former_making_that_is_recorded_again_is_an_event(tmp_path: Path) -> None:
    """As after a crash: the node is what it was then, and that is stale."""
    project = make_project(tmp_path / "toy")
    make_all(project)
    key = prepare(project, project.steps["counted"], ["A1"]).ready["A1"].key
    (project.root / "reads/A1.txt").write_text("quite other reads\n")
    look(project)
    make_all(project)
    before = state_of_the_world(project)
    assert reasons(project) == {}
    former = project.store.find("counted", "A1", key)
    assert former is not None
    ledger.record(project, [former])
    assert reasons(project)["counted/A1"] == ["input"]
    assert state_of_the_world(project) != before


# Who verifies while others make


@both
def test_two_who_find_the_same_damage_at_once_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one wrote it down after the first one had looked for what is known."""
    project = make_project(tmp_path / "toy")
    make_all(project)
    file = next((project.store.root / "counted" / "A1").glob("*/n.txt"))
    file.chmod(0o644)
    file.write_bytes(b"#" + file.read_bytes())
    _between(monkeypatch, "_changed_nodes", lambda: verify(again(project), deep=False))
    assert [one.node for one in verify(project, deep=False).findings] == [("counted", "A1")]
    assert evaluate(project).of("counted", "A1").state == "lost"


@both
def test_damage_of_a_former_making_is_not_of_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node is made anew while somebody reads its former bytes."""
    project = make_project(tmp_path / "toy")
    make_all(project)
    file = next((project.store.root / "counted" / "A1").glob("*/n.txt"))
    file.chmod(0o644)
    file.write_bytes(b"#" + file.read_bytes())
    (project.root / "reads/A1.txt").write_text("quite other reads\n")
    look(project)
    _between(monkeypatch, "_check", lambda: make_all(again(project)))
    verify(project, deep=False)
    assert reasons(project) == {}
    assert verify(project).findings == ()


def _between(monkeypatch: pytest.MonkeyPatch, after: str, what: Callable[[], Any]) -> None:
    """Do something once, when that part of a verification has ended."""
    real = getattr(ctcore.integrity.verify, after)

    def then(*given: Any) -> Any:
        found = real(*given)
        if not after.startswith("_check") or found:
            monkeypatch.setattr(ctcore.integrity.verify, after, real)
            what()
        return found

    monkeypatch.setattr(ctcore.integrity.verify, after, then)


# Clocks


class Clock:
    """A clock that jumps back, stands still and jumps ahead, for `ctcore.util.clock`."""

    def __init__(self, *moments: float) -> None:
        self.moments = moments
        self.asked = 0

    def time(self) -> float:
        self.asked += 1
        return self.moments[self.asked % len(self.moments)]


@both
@pytest.mark.parametrize("moments", [(2e9, 1e9, 1.5e9), (1e9,), (2e9, 1.9e9, 1.8e9, 1.7e9, 1.6e9)])
def test_a_clock_that_jumps_back_changes_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moments: tuple[float, ...]
) -> None:
    real, clock = ctcore.util.clock.time, Clock(*moments)
    turned = SimpleNamespace(time=clock.time, gmtime=real.gmtime, strftime=real.strftime)
    monkeypatch.setattr(ctcore.util.clock, "time", turned)
    monkeypatch.setattr("ctcore.execution.call.time", SimpleNamespace(time=clock.time, monotonic=real.monotonic))
    project = make_project(tmp_path / "toy")
    make_all(project)
    reads = project.root / "reads/A1.txt"
    for text, states in (("other\n", {"made"}), ("yet others\n", {"made"}), ("reads of A1\n", {"hit"})):
        reads.write_text(text)
        look(project)
        assert reasons(project)["counted/A1"] == ["input"]
        assert set(make_all(project).values()) == states
        assert reasons(project) == reasons(again(project)) == {}
    assert clock.asked > 10


def test_two_makings_of_one_call_in_one_moment_are_two(project: Project) -> None:
    """A clock that was set back, or stands still: what was made last counts."""
    node = ("counted", "A1")
    for text in ("one", "two"):
        harm(project, node)
        one = record(project, node, text=text, at="2026-01-01T00:00:00.000Z")
        edges = prepare(project, project.steps["merged"], ["S1"]).ready["S1"].edges
        assert one.data_version in [edge.version for edge in edges]
    with project.catalog.read() as connection:
        from sqlalchemy import select

        from ctcore.catalog.tables import artifact, materialization

        joined = select(artifact.c.data_version, materialization.c.data_version).join(
            materialization, materialization.c.id == artifact.c.materialization
        )
        assert all(now == made for now, made in connection.execute(joined))


# What was true is true again


def _config(old: str, new: str) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        path = project.root / "ct.toml"
        path.write_text(path.read_text().replace(old, new, 1))

    return change


def _file(name: str, old: str, new: str) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        path = project.root / name
        path.write_text(path.read_text().replace(old, new, 1))

    return change


def _sheet(patient: str, **what: str) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        rows = [{**row, **what} if row["assay_id"] == patient else row for row in ROWS]
        sexes = {row["patient_id"]: row["sex"] for row in rows}
        ages = {row["patient_id"]: row["age"] for row in reversed(ROWS)}
        rows = [{**row, "sex": sexes[row["patient_id"]], "age": ages[row["patient_id"]]} for row in rows]
        path = write_sheet(project.root, rows)
        register(project, path, AllowedChanges(frozenset({"A2"}), frozenset({"patient.sex"})))

    return change


@both
@pytest.mark.parametrize(
    ("change", "back", "stale"),
    [
        (_config('version = "1"', 'version = "2"'), _config('version = "2"', 'version = "1"'), "counted/A1"),
        (_file("genome.txt", "ACGT", "TTTT"), _file("genome.txt", "TTTT", "ACGT"), "counted/A3"),
        (_file("reads/A1.txt", "of", "from"), _file("reads/A1.txt", "from", "of"), "counted/A1"),
        (_file("steps/toy.py", "' '.join", "'+'.join"), _file("steps/toy.py", "'+'.join", "' '.join"), "merged/S1"),
        (_file("steps/toy.py", "int = 1", "int = 2"), _file("steps/toy.py", "int = 2", "int = 1"), "counted/A2"),
        (
            _config("[cohorts.all]", '[cohorts.all]\nwhere = { "patient.sex" = "F" }'),
            _config('[cohorts.all]\nwhere = { "patient.sex" = "F" }', "[cohorts.all]"),
            "joined/all",
        ),
        (_sheet("A3", sex="F"), _sheet("A3"), "merged/S2"),
        (_sheet("A2", patient_id="P2", specimen_id="S2", sex="M"), _sheet("A2"), "merged/S1"),
    ],
    ids=["version", "content", "reads", "code", "parameter", "rule", "column", "parent"],
)
def test_what_is_put_back_is_true_again_without_a_run(
    tmp_path: Path, change: Callable[[Project], None], back: Callable[[Project], None], stale: str
) -> None:
    """And while it is not back, it is not fresh: for the process that goes on, and for one that begins."""
    project = make_project(tmp_path / "toy")
    make_all(project)
    for _ in range(2):
        assert reasons(project) == {}
        for what, expected in ((change, True), (back, False)):
            what(project)
            project = again(project)
            look(project)
            assert (stale in reasons(project)) is expected
            assert reasons(project) == reasons(again(project))
    assert reasons(project) == {}
    assert make_all(project) == {}


# Others who ask and write meanwhile


def all_of(project: Project) -> list[Verdict]:
    found = evaluate(project)
    return sorted(found.stale(), key=lambda verdict: verdict.node)


@both
def test_threads_that_ask_at_once_are_told_the_same(tmp_path: Path) -> None:
    """The first question after a change, asked by several at once."""
    project = make_project(tmp_path / "toy")
    make_all(project)
    for text in ("a\n", "bb\n", "ccc\n"):
        (project.root / "reads/A1.txt").write_text(text)
        look(again(project))
        barrier = threading.Barrier(4)

        def ask(_: int, barrier: threading.Barrier = barrier) -> list[Verdict]:
            barrier.wait()
            return all_of(project)

        with ThreadPoolExecutor(4) as pool:
            said = list(pool.map(ask, range(4)))
        assert said == [all_of(again(project))] * 4
        assert [verdict.asset for verdict in said[0]] == ["counted", "joined", "merged"]
        make_all(again(project))


_ASK = """
import sys
from pathlib import Path
from ctcore.project import Project
from tests.execution.test_bad_days import all_of
print("ready", flush=True)
sys.stdin.readline()
for verdict in all_of(Project.find(Path(sys.argv[1]))):
    print(verdict)
"""


@both
def test_processes_that_ask_at_once_are_told_the_same(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make(project, "counted", runner=Inline(project))
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _ASK, str(project.root)]
    asking = [
        subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=dict(os.environ), cwd=Path(__file__).parents[2]
        )
        for _ in range(2)
    ]
    try:
        for one in asking:
            assert one.stdout is not None and one.stdout.readline() == "ready\n"
        said = [one.communicate("go\n", 60)[0] for one in asking]
    finally:
        for one in asking:
            one.kill()
            one.communicate()
    assert said == ["".join(f"{verdict}\n" for verdict in all_of(project))] * 2
    assert "merged" in said[0]


ROUND = 12


@both
def test_what_is_asked_while_others_write_is_one_state(tmp_path: Path) -> None:
    """Each transaction makes a pair of assays; whoever asks in between never sees half of one.

    All three nodes that follow are asked too: a node and what it is made from are seen at one moment.
    """
    rows = [assay(f"P{n}", f"S{n}", f"A{n}{end}", sex="F") for n in range(ROUND) for end in "ab"]
    project, asking = (made := make_project(tmp_path / "toy", rows)), again(made)
    done, seen = threading.Event(), list[set[str]]()

    def ask() -> None:
        while not done.is_set():
            found = evaluate(asking)
            lacking = {verdict.node for verdict in found.stale() if verdict.state == "missing"}
            for number in range(ROUND):
                halves = [("counted", f"A{number}{end}") in lacking for end in "ab"]
                above = {reason.kind for reason in found.of("merged", f"S{number}").reasons}
                assert halves[0] == halves[1], f"half of a transaction: {number} {halves}"
                assert ("upstream" in above) == halves[0], f"two moments: {number} {halves} {above}"
            assert found.count("counted")["fresh"] == 2 * ROUND - sum(asset == "counted" for asset, _ in lacking)
            seen.append({partition for asset, partition in lacking if asset == "counted"})

    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask) for _ in range(2)]
        try:
            for number in range(ROUND):
                _pair(project, [f"A{number}a", f"A{number}b"])
                if asked[0].done():
                    break
                _wait_for(seen, asked)
        finally:
            done.set()
        for one in asked:
            one.result()
    assert len({len(some) for some in seen}) > 2, "nobody asked while somebody wrote"
    assert all_of(asking) == all_of(again(project))


def _wait_for(seen: list[Any], asked: list[Any]) -> None:
    """Until somebody asked once more."""
    pause, before = threading.Event(), len(seen)
    while len(seen) == before and not any(one.done() for one in asked):
        pause.wait(0.002)


def _pair(project: Project, keys: list[str]) -> None:
    """Publish these, then record them in one transaction."""
    calls = prepare(project, project.steps["counted"], keys).ready.values()
    published = []
    for call in calls:
        sidecar = {
            "node": list(call.node),
            "level": "assay",
            "key": call.key,
            "recipe": {name: getattr(call.recipe, name) for name in ("step", "code", "parameters", "environment")},
            "inputs": [list(edge) for edge in call.edges],
            "members": [],
            "outputs": {"n": "n.txt"},
            "facts": {},
            "reason": "asked for",
            "started_at": "2026-01-01T00:00:00.000Z",
            "seconds": 0.0,
        }
        staged = project.store.stage(*call.node, call.key)
        (staged / "n.txt").write_text(call.node[1])
        published.append(project.store.publish(staged, *call.node, call.key, sidecar, ["n.txt"]))
    ledger.record(project, published)


VANISHING = STEPS.replace(
    '    n = len(call.file("reads")',
    '    store = call.out("n").parents[2]\n'
    '    if call.entity == "A2":\n'
    '        store.rename(store.with_name("away"))\n'
    '    n = len(call.file("reads")',
)


def test_a_store_that_vanishes_in_a_run_is_not_made_anew(tmp_path: Path) -> None:
    """Else what is in it would be made again, in a folder where its disk should be mounted."""
    project = make_project(tmp_path / "toy", steps=VANISHING)
    store = project.store.root
    one, *others = make(project, "counted", runner=Inline(project))
    assert one.state == "made" and len(others) == 2
    for outcome in others:
        assert outcome.state == "failed" and f"the store is not there any more ({store})" in outcome.why
    assert not store.exists()
    store.with_name("away").rename(store)
    (project.root / "steps/toy.py").write_text(STEPS)
    assert set(make_all(again(project)).values()) == {"made"}
