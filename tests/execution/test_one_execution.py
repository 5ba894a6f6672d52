"""One key, one execution: however many runs want the same nodes at the same time, each call is executed once.

CT_EXAMPLES sets how many keys the runs want (1000 is the long trial); CT_RUNS how many runs there are.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ctcore.cohorts.partitions import partitions
from ctcore.execution import materialize
from ctcore.execution.call import StepCall, StepResult
from ctcore.execution.ledger import FailedCall, record_failures
from ctcore.execution.materialize import Outcome, StepRun
from ctcore.inputs.current import forget
from ctcore.inputs.key import cache_hits, prepare
from ctcore.project import Project
from ctcore.projects import leases
from ctcore.staleness.verdicts import evaluate
from ctcore.util import processes
from ctcore.util.processes import process_name
from tests.helpers.killing import forked
from tests.helpers.kit import STEPS, Inline, add, again, assay, make, make_all, make_project, reasons

KEYS = int(os.environ.get("CT_EXAMPLES", "60"))
RUNS = [int(os.environ["CT_RUNS"])] if "CT_RUNS" in os.environ else [2, 4]
TOLD = STEPS.replace(
    "    n = len(",
    "    import os, time\n"
    "    handle = os.open(os.environ['CT_TEST_CALLS'], os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
    "    os.write(handle, f'{call.entity}\\n'.encode())\n"
    "    os.close(handle)\n"
    "    time.sleep(float(os.environ.get('CT_TEST_SLEEP', '0')))\n"
    "    n = len(",
    1,
)

pytestmark = pytest.mark.usefixtures("catalog_url")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in which every execution of `counted` leaves the ID of its assay."""
    monkeypatch.setenv("CT_TEST_CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def project_of(root: Path, assays: int = 3) -> Project:
    return make_project(root, [assay("P1", "S1", f"A{n}", sex="F") for n in range(assays)], steps=TOLD)


def executed(calls: Path) -> Counter[str]:
    return Counter(calls.read_text().split()) if calls.exists() else Counter()


def before_the_leases(project: Project, monkeypatch: pytest.MonkeyPatch, act: Callable[[Project], object]) -> None:
    """Let another run act once, between the look for what is made already and the taking of the leases."""
    waiting, take = [act], leases.take

    def interrupted(*arguments: object) -> set[str]:
        if waiting:
            waiting.pop()(again(project))
        return take(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(leases, "take", interrupted)


def test_a_key_made_and_released_before_the_lease_is_a_hit(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_of(tmp_path / "toy")
    before_the_leases(project, monkeypatch, lambda other: make(other, "counted", runner=Inline(other)))
    assert [one.state for one in make(project, "counted", runner=Inline(project))] == ["hit"] * 3
    assert set(executed(calls).values()) == {1}
    assert make(project, "counted", runner=Inline(project))[0].state == "hit"  # no lease is left


def test_a_published_unrecorded_key_is_taken_after_its_lease(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_of(tmp_path / "toy")

    def publish(other: Project) -> None:
        step = other.steps["counted"]
        ready = list(prepare(other, step, partitions(other, "assay")).ready.values())
        for _ in Inline(other).run(materialize._step_calls(other, step, ready, {}, None)):
            pass

    before_the_leases(project, monkeypatch, publish)
    made = make(project, "counted", runner=Inline(project))
    assert [one.state for one in made] == ["hit"] * 3 and "ended before recording" in made[0].why
    assert set(executed(calls).values()) == {1}


def test_a_call_with_a_renewed_input_is_prepared_again(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_of(tmp_path / "toy")
    make(project, "counted", runner=Inline(project))

    def change(other: Project) -> None:
        (other.root / "reads" / "A0.txt").write_text("other and longer reads of A0\n")
        add(other, [assay("P1", "S1", f"A{n}", sex="F") for n in range(3)])
        make_all(other)

    before_the_leases(project, monkeypatch, change)
    (one,) = make(project, "merged", runner=Inline(project))
    assert one.state == "hit"
    forget()
    assert reasons(again(project)) == {}


def test_a_call_that_failed_in_another_run_is_not_retried(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_of(tmp_path / "toy")

    def fail(other: Project) -> None:
        ready = prepare(other, other.steps["counted"], ["A1"]).ready["A1"]
        record_failures(other, [FailedCall(ready.node, ready.key, "no luck", None)], "another run")

    before_the_leases(project, monkeypatch, fail)
    found = {one.node[1]: one for one in make(project, "counted", runner=Inline(project))}
    assert {name: one.state for name, one in found.items()} == {"A0": "made", "A1": "failed", "A2": "made"}
    assert "no luck" in found["A1"].why and "another run" in found["A1"].why
    assert executed(calls) == {"A0": 1, "A2": 1}
    assert make(project, "counted", "A1", runner=Inline(project))[0].state == "made"  # a new run tries it


@pytest.mark.parametrize(("silent_s", "free"), [(None, False), (60, False), (3600, True)])
def test_a_silent_hosts_lease_is_free(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch, silent_s: float | None, free: bool
) -> None:
    """None: it never gave any, as by an earlier version, and nobody can say."""
    project = project_of(tmp_path / "toy")
    (ready,) = prepare(project, project.steps["counted"], ["A1"]).ready.values()
    with monkeypatch.context() as there:
        there.setattr(processes, "host_name", lambda: "n17")
        there.setattr(leases, "start_heartbeat", lambda *_: None)
        assert leases.take(project, [(ready.key, ready.node)], None) == {ready.key}
        place = project.work / "beats" / process_name().replace(":", "~")
    if silent_s is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        os.utime(place, (time.time() - silent_s,) * 2)
    forget()
    assert evaluate(again(project)).of("counted", "A1").state == ("missing" if free else "running")
    assert (leases.take(project, [(ready.key, ready.node)], None) == {ready.key}) is free


def test_a_process_number_given_again_is_another_process(tmp_path: Path, calls: Path) -> None:
    host, number, start = process_name().rsplit(":", 2)
    assert leases.is_alive(f"{host}:{number}:{start}", tmp_path)
    assert not leases.is_alive(f"{host}:{number}:{int(start) - 1}", tmp_path)


def test_a_result_that_vanishes_with_its_store_says_so(tmp_path: Path, calls: Path) -> None:
    project = project_of(tmp_path / "toy", 1)

    class Vanishing(Inline):
        def run(self, calls: Sequence[StepCall]) -> Iterator[list[StepResult]]:
            for some in super().run(calls):
                project.store.root.rename(tmp_path / "away")
                yield some

    (one,) = make(project, "counted", runner=Vanishing(project))
    assert one.state == "failed"
    assert one.why.endswith(f"is not in the store ({project.store.root}); its disk went away: have it mounted again")
    (tmp_path / "away").rename(project.store.root)
    assert [one.state for one in make(again(project), "counted")] == ["hit"]


def test_whoever_holds_a_lease_gives_signs_of_life(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctcore.projects.heartbeats.EVERY_S", 0.05)
    project = project_of(tmp_path / "toy")
    make(project, "counted", "A1", runner=Inline(project))
    place = project.work / "beats" / process_name().replace(":", "~")
    os.utime(place, (0, 0))
    deadline = time.monotonic() + 20
    while place.stat().st_mtime == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert time.time() - place.stat().st_mtime < 20


@pytest.mark.parametrize("runs", RUNS)
def test_runs_at_once_execute_each_key_once(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch, runs: int
) -> None:
    """Each is a process, begins at a random moment, and the moment between look and lease is made longer."""
    monkeypatch.setenv("CT_TEST_SLEEP", "0.002")
    project = project_of(tmp_path / "toy", KEYS)
    project.catalog.engine.dispose()
    offsets = [random.random() * 0.8 for _ in range(runs)]
    start = time.time() + 0.2
    children = []
    for number, offset in enumerate(offsets):
        child = os.fork()
        if child == 0:
            os._exit(abs(forked(lambda at=start + offset: _one_run(project.root, at), tmp_path / f"log{number}")))
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * runs, [path.read_text() for path in tmp_path.glob("log*")]
    done = executed(calls)
    assert len(done) == KEYS and {name: n for name, n in done.items() if n > 1} == {}
    forget()
    assert not [node for node in reasons(again(project)) if node.startswith("counted/")]


def _one_run(root: Path, at: float) -> int:
    """A run that gets its nodes in chunks, as Dagster gives them, and looks more often than one in earnest."""
    forget()
    materialize.WAIT_S = 0.01
    look = materialize.cache_hits

    def slow(*arguments: object, **more: object) -> object:
        found = look(*arguments, **more)  # type: ignore[arg-type]
        time.sleep(0.02)
        return found

    materialize.cache_hits = slow  # type: ignore[assignment]
    project = Project.find(root)
    time.sleep(max(0.0, at - time.time()))
    everything = partitions(project, "assay")
    outcomes: list[Outcome] = []
    for first in range(0, len(everything), 20):
        some = everything[first : first + 20]
        outcomes += StepRun(project, project.steps["counted"], some, stale_only=True, runner=Inline(project)).outcomes()
    return sum(one.state not in ("made", "hit") for one in outcomes)


def test_what_a_look_finds_is_what_the_ledger_has(tmp_path: Path, calls: Path) -> None:
    project = project_of(tmp_path / "toy")
    ready = list(prepare(project, project.steps["counted"], partitions(project, "assay")).ready.values())
    assert cache_hits(project, ready) == {}
    make(project, "counted", runner=Inline(project))
    assert cache_hits(project, ready).keys() == {call.key for call in ready}
