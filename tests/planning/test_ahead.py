"""`ct run` makes what is ready while the last calls of a step go on: a slow sample holds up nobody else."""

import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from ctcore.execution.materialize import Outcome, StepRun
from ctcore.execution.slurm.cancel import RunEnd, Stop, WaitLoop
from ctcore.inputs.key import prepare
from ctcore.planning.ahead import AheadRuns
from ctcore.planning.plan import scope
from ctcore.planning.work_list import WorkList
from ctcore.project import Project
from ctcore.projects import leases
from tests.helpers.kit import Inline, again, make, make_project, reasons
from tests.helpers.meetings import PATIENCE_S, Meetings
from tests.helpers.shell import command, environment, shell
from tools.slurm.processes import wait

pytestmark = pytest.mark.slow


class _Waiting(WaitLoop[Outcome]):
    """A run that waits for its last call, with nothing more to start."""

    is_over, is_waiting, busy, most = False, False, 1, 2

    def look(self) -> list[Outcome]:
        return []

    def apply_end(self, wish: RunEnd) -> None:
        pass


def test_what_another_holds_is_given_up_until_its_turn(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make(project, "counted", runner=Inline(project))
    key = prepare(project, project.steps["merged"], ["S1"]).ready["S1"].key
    leases.take(project, [(key, ("merged", "S1"))], None)
    ahead = AheadRuns(project, WorkList(project, scope(project, [])))
    ahead.follow(Stop(), "run", "counted", [])
    until = time.monotonic() + PATIENCE_S
    while (not ahead.nodes("merged") or not ahead.is_over) and time.monotonic() < until:
        ahead.look(_Waiting())
        time.sleep(0.05)
    assert ahead.nodes("merged") == {"S2"}
    leases.give_back_ours(project, [key])
    run = StepRun(project, project.steps["merged"], ["S1", "S2"], stale_only=True, runner=Inline(project), ahead=ahead)
    assert {one.node: one.state for one in run.outcomes()} == {("merged", "S1"): "made", ("merged", "S2"): "made"}
    assert ahead.nodes("merged") == set() and reasons(again(project)) == {"joined/all": ["missing"]}


def begin(toy: Meetings, *words: str) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    return subprocess.Popen(command("-C", toy.root, "run", *words), env=environment(), stderr=pipe, text=True)


def ended(run: "subprocess.Popen[str]") -> tuple[int, str]:
    said = run.communicate(timeout=PATIENCE_S)[1]
    return run.returncode, said


def test_a_slow_sample_holds_up_nobody_else(tmp_path: Path) -> None:
    toy = Meetings(tmp_path)
    toy.tell("first-A1", "third-A2.done", "third-A3.done", "apart-A1.done")
    said = shell("-C", toy.root, "run")
    assert said.code == 0 and "13 made, 0 reused, 0 not made" in said.err, said
    assert "first: meanwhile, " in said.err
    assert set(toy.calls().values()) == {1} and len(toy.calls()) == 13
    assert toy.events() == toy.calls()
    assert reasons(Project(toy.root)) == {}


def test_only_what_was_asked_for_is_made_ahead(tmp_path: Path) -> None:
    toy = Meetings(tmp_path)
    toy.tell("first-A1", "second-A2.done", "go")
    with begin(toy, "second") as run:
        assert wait(lambda: toy.is_done("second-A2", "second-A3"), PATIENCE_S)
        toy.say("go")
        code, said = ended(run)
    assert code == 0 and "6 made, 0 reused, 0 not made" in said, said
    assert {call.partition("/")[0] for call in toy.calls()} == {"first", "second"}


def test_what_fails_ahead_is_told_once_and_blocks_what_needs_it(tmp_path: Path) -> None:
    toy = Meetings(tmp_path)
    toy.tell("first-A1", "third-A3.done", "apart-A3.done")
    toy.tell("second-A2", "fail")
    said = shell("-C", toy.root, "run")
    assert said.code == 1 and "10 made, 0 reused, 3 not made" in said.err, said
    assert said.err.count("second/A2 failed: ValueError: told to fail") == 2, said.err  # at once, and in the end
    assert "third/A2 blocked: " in said.err and "together/all blocked: " in said.err
    assert toy.events() == toy.calls() - Counter(["second/A2"])
    (toy.told / "second-A2").unlink()
    again = shell("-C", toy.root, "run")
    assert again.code == 0 and "3 made, 0 reused, 0 not made" in again.err, again


def test_the_first_failure_stops_what_is_ahead_too(tmp_path: Path) -> None:
    toy = Meetings(tmp_path, 2)
    toy.tell("first-A1", "go")
    toy.tell("second-A2", "fail")
    with begin(toy, "--fail", "fast") as run:
        assert wait(lambda: toy.calls()["second/A2"] == 1, PATIENCE_S)
        assert run.stderr is not None
        assert any("second/A2 failed" in line for line in run.stderr)
        toy.say("go")
        code, said = ended(run)
    assert code == 1 and "stopped at the first failure" in said, said
    assert toy.is_done("first-A1") and "second/A1" not in toy.calls()


def test_after_ctrl_c_what_is_at_work_ahead_is_kept(tmp_path: Path) -> None:
    toy = Meetings(tmp_path, 2)
    toy.tell("first-A1", "second-A2.begun", "go")
    toy.tell("second-A2", "go")
    with begin(toy) as run:
        assert wait(lambda: toy.calls()["second/A2"] == 1, PATIENCE_S)
        run.send_signal(signal.SIGINT)
        toy.say("second-A2.begun")
        toy.say("go")
        code, said = ended(run)
    assert code == 130 and "what was made is kept" in said, said
    assert toy.is_done("first-A1", "second-A2")
    rest = shell("-C", toy.root, "run")
    assert rest.code == 0, rest
    assert set(toy.calls().values()) == {1} and len(toy.calls()) == 9
    assert toy.events() == toy.calls()


def test_a_killed_run_loses_nothing_that_was_made_ahead(tmp_path: Path) -> None:
    toy = Meetings(tmp_path, 2)
    toy.tell("first-A1", "third-A2.done", "go")
    with begin(toy) as run:
        assert wait(lambda: toy.is_done("third-A2", "apart-A1", "apart-A2"), PATIENCE_S)
        run.kill()
        run.wait()
    toy.say("go")
    assert wait(lambda: toy.is_done("first-A1"), PATIENCE_S)
    rest = shell("-C", toy.root, "run")
    assert rest.code == 0, rest
    assert set(toy.calls().values()) == {1} and len(toy.calls()) == 9
    assert toy.events() == toy.calls()
    assert shell("-C", toy.root, "run").err == "everything is fresh: nothing to do\n"
