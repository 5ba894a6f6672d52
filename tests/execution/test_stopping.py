"""Ending a run on this machine has the stages that it has on Slurm, and throws away nothing that is being made."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import select

from ctcore.catalog.tables import attempt, lease
from ctcore.project import Project
from ctcore.projects.dagster_home import environment as dagster_environment
from ctcore.util.processes import process_name
from tests.helpers.cluster_runs import Cohort
from tests.helpers.kit import STEPS, again, make
from tests.helpers.shell import environment, quiet_dagster, shell
from tests.slurm.test_slurm_dagster import RUN as IN_DAGSTER
from tools.slurm.processes import Process, wait

PATIENCE_S = 60
RUN = """
import sys
from pathlib import Path
from ctcore.util import progress
from ctcore.execution.materialize import StepRun
from ctcore.project import Project
from ctcore.execution.slurm.cancel import on_failure
project = Project.find(Path(sys.argv[2]))
with on_failure(sys.argv[1]), progress.reading(lambda text: print(text, file=sys.stderr, flush=True)):
    for one in StepRun(project, project.steps["counted"], sys.argv[3:]).outcomes():
        print(one.node[1], one.state, flush=True)
"""


@pytest.fixture
def toy(tmp_path: Path) -> Cohort:
    """Six assays and two workers: a batch of three calls each."""
    return Cohort(tmp_path / "toy", 6)


def start(toy: Cohort, fail: str = "slow") -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", RUN, fail, str(toy.project.root), *toy.names]
    return subprocess.Popen(command, env=environment(), stdout=pipe, stderr=pipe, text=True)


def hear(run: "subprocess.Popen[str]", number: signal.Signals) -> str:
    """Send a signal; gives the line that the run says then."""
    assert run.stderr is not None
    run.send_signal(number)
    return run.stderr.readline().strip()


def made(project: Project) -> list[str]:
    return sorted(path.parent.name for path in project.store.root.glob("counted/*/*") if path.is_dir())


def begun(toy: Cohort, many: int) -> None:
    assert wait(lambda: sum(toy.begun().values()) == many, PATIENCE_S), toy.begun()


def test_ctrl_c_lets_what_runs_finish_and_begins_nothing_new(toy: Cohort) -> None:
    for name in toy.names:
        toy.tell(name, "wait")
    run = start(toy)
    begun(toy, 2)
    said = hear(run, signal.SIGINT)
    assert said == "withdrawing queued jobs; running ones may finish, and are kept (again: cancel them)"
    toy.go()
    run.communicate(timeout=PATIENCE_S)
    assert run.returncode != 0 and made(toy.project) == ["A000", "A003"]
    toy.settled()
    states = Counter(one.state for one in make(again(toy.project), "counted"))
    assert states == {"hit": 2, "made": 4} and set(toy.begun().values()) == {1}


def test_a_second_ctrl_c_ends_what_runs(toy: Cohort) -> None:
    for name in toy.names:
        toy.tell(name, "wait")
    run = start(toy)
    begun(toy, 2)
    hear(run, signal.SIGINT)
    assert hear(run, signal.SIGINT) == "cancelling all jobs (again: leave at once)"
    run.communicate(timeout=PATIENCE_S)
    assert run.returncode != 0 and made(toy.project) == []
    toy.settled()
    with again(toy.project).catalog.read() as connection:
        assert connection.execute(select(attempt)).all() == [], "nobody has failed"


@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGINT, signal.SIGTERM]])
def test_what_is_left_alone_is_waited_for_by_the_next_run(toy: Cohort, numbers: list[signal.Signals]) -> None:
    for name in toy.names:
        toy.tell(name, "wait")
    run = start(toy)
    begun(toy, 2)
    said = [hear(run, number) for number in numbers]
    assert said[-1] == "2 jobs go on here; the next run of these nodes waits for them"
    assert run.wait(PATIENCE_S) != 0
    toy.go()
    assert {one.state for one in make(again(toy.project), "counted")} <= {"hit", "made"}
    assert set(toy.begun().values()) == {1} and len(toy.begun()) == 6
    with again(toy.project).catalog.read() as connection:
        assert connection.execute(select(lease)).all() == []


def test_fail_fast_finishes_what_runs_and_starts_nothing_new(toy: Cohort) -> None:
    toy.tell("A000", "fail later")
    for name in toy.names[1:]:
        toy.tell(name, "wait")
    run = start(toy, "fast")
    begun(toy, 2)
    toy.later()
    assert run.stderr is not None
    said = run.stderr.readline().strip()
    assert said == "a call failed (--fail fast): withdrawing queued jobs; running ones may finish, and are kept"
    toy.go()
    out, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0 and Counter(out.split())["failed"] == 1
    assert sum(toy.begun().values()) <= 3, "at most the one that the worker took meanwhile"
    toy.settled()


@pytest.mark.slow
@pytest.mark.parametrize("forced", [False, True])
def test_a_terminated_run_finishes_a_forced_one_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forced: bool
) -> None:
    root = tmp_path / "toy"
    assert shell("init", root).code == 0
    toy = Cohort(quiet_dagster(root), 4)
    monkeypatch.setenv("CT_PROFILE", "local")
    for name, value in dagster_environment(toy.project).items():
        monkeypatch.setenv(name, value)
    for name in toy.names:
        toy.tell(name, "wait")
    synced = [sys.executable, "-m", "ct_assets.launch", "sync"]
    subprocess.run(synced, env=environment(CT_PROJECT=str(root)), check=True)
    run = subprocess.Popen([sys.executable, "-c", IN_DAGSTER], env=environment(CT_PROJECT=str(root)), cwd=root)
    begun(toy, 2)
    with dg.DagsterInstance.get() as instance:
        (one,) = instance.get_runs()
        instance.report_run_canceling(one)
        run.send_signal(signal.SIGINT)
        assert not wait(lambda: run.poll() is not None, 2)
        if forced:
            instance.report_run_canceled(one)
        else:
            toy.go()
        assert wait(lambda: run.poll() is not None, PATIENCE_S)
        (one,) = instance.get_runs()
        assert one.status == dg.DagsterRunStatus.CANCELED
    toy.settled()
    toy.go()
    states = Counter(state.state for state in make(again(toy.project), "counted"))
    assert states == ({"made": 4} if forced else {"hit": 2, "made": 2})


@pytest.mark.slow
def test_ct_run_fail_fast_starts_no_later_step_and_says_so(tmp_path: Path) -> None:
    toy = Cohort(tmp_path / "toy", 3)
    toy.tell("A000", "fail")
    root = quiet_dagster(toy.project.root)
    said = shell("-C", root, "run", "--fail", "fast")
    assert said.code == 1 and "stopped at the first failure (--fail fast); `ct run` goes on with the rest" in said.err
    assert not (root / "store" / "merged").exists()
    assert "counted/A000 failed: ValueError: no luck with A000" in said.err
    os.unlink(f"{toy.calls}.A000")
    assert shell("-C", root, "run").code == 0


GRANDCHILD = """
    import signal, subprocess
    from pathlib import Path
    if call.params.deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    begin = f"sleep 300 & echo $! >> {call.params.calls}; setsid sleep 300 & echo $! >> {call.params.calls}; wait"
    subprocess.run(["sh", "-c", begin])
    n = len("""


@pytest.mark.parametrize("deaf", [False, True])
def test_whatever_a_call_started_ends_with_it(tmp_path: Path, deaf: bool) -> None:
    """With the second Ctrl-C, or where the call does not hear that, with the third."""
    steps = STEPS.replace("\n    n = len(", GRANDCHILD, 1)
    declared = f'    factor: int = 1\n    calls: str = "/dev/null"\n    deaf: bool = {deaf}\n'
    toy = Cohort(tmp_path / "toy", 1, steps=steps.replace("    factor: int = 1\n", declared))
    run = start(toy)
    assert wait(lambda: toy.calls.exists() and len(toy.calls.read_text().split()) == 2, PATIENCE_S)
    some = [Process(int(pid), int(process_name(int(pid)).rpartition(":")[2])) for pid in toy.calls.read_text().split()]
    assert all(one.alive() for one in some)
    for _ in range(2):
        hear(run, signal.SIGINT)
    if deaf:
        run.send_signal(signal.SIGINT)
    run.communicate(timeout=PATIENCE_S)
    assert wait(lambda: not any(one.alive() for one in some), 5)


def test_what_a_call_leaves_running_ends_with_its_worker(tmp_path: Path) -> None:
    steps = STEPS.replace("\n    n = len(", GRANDCHILD.replace("; wait", ""), 1)
    declared = '    factor: int = 1\n    calls: str = "/dev/null"\n    deaf: bool = False\n'
    toy = Cohort(tmp_path / "toy", 1, steps=steps.replace("    factor: int = 1\n", declared))
    assert [one.state for one in make(toy.project, "counted")] == ["made"]
    some = [Process(int(pid), int(process_name(int(pid)).rpartition(":")[2])) for pid in toy.calls.read_text().split()]
    assert len(some) == 2 and wait(lambda: not any(one.alive() for one in some), 5)


def test_a_call_that_ends_its_process_says_how_it_ended(toy: Cohort) -> None:
    told = {"A000": "exit 7", "A001": "kill 11", "A002": "kill", "A003": "exit 0"}
    for name, what in told.items():
        toy.tell(name, what)
    ended = {one.node[1]: one for one in make(toy.project, "counted")}
    how = ["exit code 7", "signal SIGSEGV", "signal SIGKILL", "exit code 0"]
    for name, said in zip(told, how, strict=True):
        assert ended[name].why == f"the call ended its process without a result ({said}); see its log"
        assert f"begun {name}" in Path(ended[name].log or "").read_text()
    assert {name for name, one in ended.items() if one.state == "made"} == {"A004", "A005"}


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.3, 0.9, 1.5])
def test_ctrl_c_while_a_run_is_being_started_is_one_line(tmp_path: Path, after_s: float) -> None:
    project = Cohort(tmp_path / "toy", 2).project
    root = quiet_dagster(project.root)
    command = [sys.executable, "-m", "ctcore.cli", "-C", str(root), "run"]
    run = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(after_s)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 130 and "Traceback" not in said and said.count("interrupted") == 1, said


def test_ctrl_c_within_an_exec_is_exit_code_130(tmp_path: Path) -> None:
    """An import that makes a dataclass is one: for that CPython would end by SIGINT, whatever the exit code."""
    hit = 'def hit(**_):\n    exec("import signal; signal.raise_signal(signal.SIGINT)")\n'
    (tmp_path / "hit.py").write_text(f"import ctcore.cli\n\n{hit}\nctcore.cli.cli = hit\nctcore.cli.main()\n")
    command = [sys.executable, "-m", "hit"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, b"ct: interrupted\n")


def test_a_slow_call_holds_up_nobody_behind_it(toy: Cohort) -> None:
    toy.tell("A000", "wait")
    with start(toy) as run:
        try:
            begun(toy, 6)  # A001 and A002 were given to the same worker
        finally:
            toy.go()
        out, err = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0 and Counter(out.split()[1::2]) == {"made": 6}, err
    assert set(toy.begun().values()) == {1}
    toy.settled()
