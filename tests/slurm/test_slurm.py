"""Steps on a real Slurm cluster: each state is provoked, processes are killed, and every call is made exactly once."""

import contextvars
import os
import random
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctcore.execution.materialize import StepRun
from ctcore.execution.slurm import jobs
from ctcore.execution.slurm.cancel import on_failure
from ctcore.execution.slurm.reconcile import sweep
from ctcore.execution.slurm.runner import SlurmRunner
from tests.helpers.cluster_runs import PROFILE, Cohort
from tests.helpers.kit import again, make
from tests.helpers.shell import ct
from tests.helpers.slurm import Slurm
from tools.slurm.processes import wait

pytestmark = pytest.mark.slow
PATIENCE_S = 60


@pytest.fixture
def cluster(quiet_slurm: Slurm) -> Slurm:
    return quiet_slurm


@pytest.fixture
def cohort(tmp_path: Path, cluster: Slurm) -> Callable[..., Cohort]:
    def build(n: int, more: str = "") -> Cohort:
        return Cohort(tmp_path / "toy", n, PROFILE + more)

    return build


@pytest.fixture
def submissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with programs that go before the real ones: an sbatch that counts."""
    folder = tmp_path / "programs"
    folder.mkdir()
    program(folder, "sbatch", f'echo "$@" >> {tmp_path}/submissions; exec {real("sbatch")} "$@"')
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    yield folder


def real(name: str) -> str:
    found = shutil.which(name)
    assert found
    return found


def program(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def submitted(folder: Path) -> int:
    path = folder.parent / "submissions"
    return len(path.read_text().splitlines()) if path.exists() else 0


def states(found: dict) -> dict[str, str]:
    return {name: one.state for name, one in found.items()}


def test_a_step_is_one_array_and_each_call_runs_once(cohort: Callable[..., Cohort], submissions: Path) -> None:
    toy = cohort(20)
    assert states(toy.make()) == dict.fromkeys(toy.names, "made")
    assert submitted(submissions) == 1
    assert toy.begun() == Counter(toy.names)
    rows = toy.rows()
    assert len({row["job"] for row in rows}) == 1
    assert {(row["state"], row["tries"], row["requeues"]) for row in rows} == {("COMPLETED", 1, 0)}
    assert all(row["node"] in ("n1", "n2") and row["elapsed_s"] and row["used_mb"] for row in rows)
    toy.settled()
    assert not list((toy.project.work / "slurm").glob("*"))
    assert states(toy.make()) == dict.fromkeys(toy.names, "hit")
    assert submitted(submissions) == 1


def test_runs_at_once_submit_each_call_once(cohort: Callable[..., Cohort]) -> None:
    """CT_EXAMPLES sets how many calls (1000 is the long trial), CT_RUNS how many runs."""
    many, at_once = int(os.environ.get("CT_EXAMPLES", "24")), int(os.environ.get("CT_RUNS", "4"))
    toy = cohort(many)
    runs = []
    for names in (toy.names, toy.names[many // 2 :], toy.names[: many * 2 // 3], toy.names)[-at_once:]:
        runs.append(toy.process(*names))
        time.sleep(random.random() * 0.8)
    said = [run.communicate(timeout=PATIENCE_S * 2 + many * 4) for run in runs]
    assert {run.returncode for run in runs} == {0}, said
    assert toy.begun() == Counter(toy.names)
    toy.settled()


def test_a_rerun_on_the_cluster_is_compared_only(cohort: Callable[..., Cohort]) -> None:
    toy = cohort(3)
    toy.make()
    toy.tell("A001", "fail")
    project = again(toy.project)
    runner = SlurmRunner(project, project.settings.slurm["test"])
    making = StepRun(project, project.steps["counted"], toy.names, again=True, runner=runner)
    found = {one.node[1]: one for one in making.outcomes()}
    assert {name: (one.state, one.same) for name, one in found.items()} == {
        "A000": ("hit", True),
        "A001": ("failed", None),
        "A002": ("hit", True),
    }
    assert "no luck with A001" in found["A001"].why and "was kept" in found["A001"].why
    assert toy.begun() == {"A000": 2, "A001": 2, "A002": 2}
    assert not (project.work / "again").exists()
    assert states(toy.make()) == dict.fromkeys(toy.names, "hit")
    toy.settled()


def test_what_slurm_made_has_the_digests_of_what_was_made_here(cohort: Callable[..., Cohort], tmp_path: Path) -> None:
    there = cohort(3)
    here = Cohort(tmp_path / "other" / "toy", 3) if (tmp_path / "other").mkdir() is None else there
    here.calls = there.calls
    versions = {name: one.data_version for name, one in there.make().items()}
    assert versions == {one.node[1]: one.data_version for one in make(here.project, "counted")}


def test_a_batch_beyond_the_largest_array_is_split(
    cohort: Callable[..., Cohort], submissions: Path, cluster: Slurm
) -> None:
    toy = cohort(110, "in_flight = 105\n")
    assert set(states(toy.make()).values()) == {"made"}
    assert submitted(submissions) == 2
    assert Counter(row["job"] for row in toy.rows()).most_common()[0][1] == 101
    toy.settled()


def test_a_failing_step_costs_nobody_else_and_says_why(cohort: Callable[..., Cohort], cluster: Slurm) -> None:
    toy = cohort(4)
    toy.tell("A001", "fail")
    found = toy.make()
    assert states(found) == {"A000": "made", "A001": "failed", "A002": "made", "A003": "made"}
    assert "no luck with A001" in found["A001"].why
    assert "the last words" in Path(found["A001"].log or "").read_text()
    (row,) = (row for row in toy.rows() if row["partition"] == "A001")
    assert row["why"] == "ValueError: no luck with A001"
    assert cluster.wait_for_accounting(f"{row['job']}_{row['idx']}", "FAILED")[0].exit_code == "1:0"
    toy.settled()


def test_what_needs_more_memory_is_given_more(cohort: Callable[..., Cohort], cluster: Slurm) -> None:
    toy = cohort(2)
    toy.tell("A000", "eat 150")
    assert states(toy.make()) == {"A000": "made", "A001": "made"}
    assert [(row["tries"], row["memory_mb"]) for row in toy.rows() if row["partition"] == "A000"] == [
        (1, 102),
        (2, 204),
    ]
    first = toy.rows()[0]
    assert first["state"] == ("OUT_OF_MEMORY" if cluster.cluster.places.limits_memory() else "FAILED")
    toy.settled()


def test_more_than_the_ceiling_fails_and_says_the_limits(cohort: Callable[..., Cohort]) -> None:
    toy = cohort(1, "")
    toy.tell("A000", "eat 2000")
    found = toy.make()["A000"]
    assert found.state == "failed"
    assert "memory" in found.why and "try 3" in found.why and "0.398 GiB" in found.why and "begun A000" in found.why
    assert [row["memory_mb"] for row in toy.rows()] == [102, 204, 408]
    toy.settled()


def test_a_kill_counts_as_out_of_memory_and_is_retried(cohort: Callable[..., Cohort]) -> None:
    toy = cohort(1)
    toy.tell("A000", "kill")
    found = toy.make()["A000"]
    assert found.state == "failed" and "signal 9" in found.why
    assert toy.begun() == {"A000": 3}


def test_what_somebody_cancels_fails_and_is_not_tried_again(cohort: Callable[..., Cohort], cluster: Slurm) -> None:
    toy = cohort(2)
    toy.tell("A000", "wait")
    run = toy.process()
    begun(toy, "A000")
    wait(lambda: toy.rows()[0]["job"] is not None, PATIENCE_S)
    cluster.command("scancel", f"{toy.rows()[0]['job']}_0")
    out, err = run.communicate(timeout=PATIENCE_S)
    assert "A000 failed Slurm job" in out and "it was cancelled in Slurm" in out, out + err
    assert "A001 made" in out
    assert toy.begun() == {"A000": 1, "A001": 1}
    toy.settled()


def begun(toy: Cohort, *names: str) -> None:
    assert wait(lambda: set(names) <= set(toy.begun()), PATIENCE_S), toy.begun()


def test_a_requeued_job_is_waited_for_and_is_no_other_try(cohort: Callable[..., Cohort], cluster: Slurm) -> None:
    toy = cohort(1)
    toy.tell("A000", "once")
    run = toy.process()
    begun(toy, "A000")
    assert wait(lambda: toy.rows()[0]["job"] is not None, PATIENCE_S)
    cluster.command("scontrol", "requeue", f"{toy.rows()[0]['job']}_0")
    out, err = run.communicate(timeout=PATIENCE_S)
    assert "A000 made" in out, out + err
    assert toy.begun() == {"A000": 2} and len(toy.rows()) == 1


@pytest.mark.parametrize("again", ["--nice=0", "--no-requeue"])
def test_a_preempted_job_is_made_when_there_is_room(cohort: Callable[..., Cohort], cluster: Slurm, again: str) -> None:
    """Slurm queues it again by itself where it may; otherwise it is submitted again."""
    toy = cohort(1, f'partition = "low"\nextra = ["--nodelist=n2", "{again}"]\n')
    toy.tell("A000", "once")
    run = toy.process()
    begun(toy, "A000")
    better = cluster.sbatch("true", "--partition=high", "--nodelist=n2", "--exclusive")
    out, err = run.communicate(timeout=PATIENCE_S)
    assert "A000 made" in out, out + err
    cluster.wait_for(better, "COMPLETED")
    rows = toy.rows()
    assert {row["tries"] for row in rows} == {1} and toy.begun() == {"A000": 2}
    assert [row["state"] for row in rows] == ["PREEMPTED", "COMPLETED"][-len(rows) :]
    assert len(rows) == (2 if again == "--no-requeue" else 1)


def test_a_timeout_gets_more_time_and_a_crash_costs_no_try(tmp_path: Path, cluster: Slurm) -> None:
    """At once, on a node each: Slurm takes over a minute to end the one job, and half a minute to miss the other."""
    slow, crashed = tmp_path / "slow", tmp_path / "crashed"
    for folder in (slow, crashed):
        folder.mkdir()
    short = PROFILE.replace("time = 5\n", "time = 1\n") + 'max_time = 2\nextra = ["--nodelist=n1"]\n'
    late = Cohort(slow / "toy", 2, short)
    lost = Cohort(crashed / "toy", 1, PROFILE + 'extra = ["--nodelist=n2", "--no-requeue"]\n')
    for toy in (late, lost):
        toy.tell("A000", "once")
    runs = [toy.process() for toy in (late, lost)]
    begun(late, "A000")
    begun(lost, "A000")
    cluster.cluster.crash("n2")
    assert wait(lambda: len(lost.rows()) == 2, 2 * PATIENCE_S)
    cluster.cluster.start("n2")
    said = [run.communicate(timeout=2 * PATIENCE_S) for run in runs]
    assert all("A000 made" in out for out, _ in said) and "A001 made" in said[0][0], said
    first, second = lost.rows()
    assert first["state"] == "NODE_FAIL"
    assert (second["tries"], second["requeues"]) == (1, 1)
    asked = [(row["state"], row["tries"], row["minutes"]) for row in late.rows() if row["partition"] == "A000"]
    assert asked == [("TIMEOUT", 1, 1), ("COMPLETED", 2, 2)]
    late.settled()


@pytest.mark.parametrize("gone", ["slurmctld", "slurmdbd"])
def test_a_scheduler_that_is_down_is_waited_for(cohort: Callable[..., Cohort], cluster: Slurm, gone: str) -> None:
    """At the beginning, when nothing can be submitted, and while jobs run and end."""
    toy = cohort(3)
    toy.tell("A000", "wait")
    cluster.cluster.stop(gone)
    run = toy.process()
    if gone == "slurmctld":
        assert not wait(lambda: bool(toy.begun()), 3)
        cluster.cluster.start(gone)
    begun(toy, *toy.names)
    if gone == "slurmctld":
        cluster.cluster.stop(gone)
    toy.go()
    out, err = run.communicate(timeout=PATIENCE_S)
    cluster.cluster.start(gone)
    assert out.count(" made ") == 3, out + err
    assert toy.begun() == Counter(toy.names)
    assert sum(row["job"] is not None for row in toy.rows()) == 3


MOMENTS = {
    "before sbatch": "kill -9 $PPID; exit 1",
    "during sbatch": 'kill -9 $PPID; sleep 1; exec {sbatch} "$@"',
    "after sbatch": '{sbatch} "$@"; kill -9 $PPID',
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_killed_while_it_submits_submits_nothing_twice(
    cohort: Callable[..., Cohort], submissions: Path, tmp_path: Path, moment: str
) -> None:
    toy = cohort(5)
    program(tmp_path, "sbatch", MOMENTS[moment].format(sbatch=submissions / "sbatch"))
    run = toy.process(path=tmp_path)
    assert run.wait(PATIENCE_S) == -signal.SIGKILL
    found = states(toy.make())  # where the jobs were quicker than the second run, it finds what they made
    assert sorted(found) == sorted(toy.names) and set(found.values()) <= {"made", "hit"}
    assert submitted(submissions) == 1
    assert toy.begun() == Counter(toy.names)
    toy.settled()


@pytest.mark.parametrize("moment", ["queued", "running", "ended"])
def test_a_run_killed_while_it_waits_is_gone_on_with(
    cohort: Callable[..., Cohort], cluster: Slurm, submissions: Path, moment: str
) -> None:
    toy = cohort(4)
    for name in toy.names:
        toy.tell(name, "wait")
    if moment == "queued":
        for node in ("n1", "n2"):
            cluster.command("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    run = toy.process()
    assert wait(lambda: bool(toy.rows()) and toy.rows()[0]["job"] is not None, PATIENCE_S)
    if moment != "queued":
        begun(toy, *toy.names)
    run.kill()
    run.wait()
    if moment == "queued":
        for node in ("n1", "n2"):
            cluster.command("scontrol", "update", f"nodename={node}", "state=resume")
    toy.go()
    if moment == "ended":
        assert wait(lambda: len(list((toy.project.work / "results").glob("*.json"))) == 4, PATIENCE_S)
    assert set(states(toy.make()).values()) <= {"made", "hit"}
    assert submitted(submissions) == 1
    assert toy.begun() == Counter(toy.names)
    toy.settled()


def test_a_dead_runs_jobs_are_settled_within_two_sweeps(cohort: Callable[..., Cohort], cluster: Slurm) -> None:
    toy = cohort(3)
    toy.tell("A000", "fail later")
    toy.tell("A001", "wait")
    toy.tell("A002", "sleep 0 later")
    run = toy.process()
    begun(toy, *toy.names)
    run.kill()
    run.wait()
    toy.later()  # what the run had judged and not recorded yet would be the next run's to repair, and no sweep's
    project = again(toy.project)
    wait(lambda: len(list((toy.project.work / "results").glob("*.json"))) >= 2, PATIENCE_S)
    assert wait(lambda: len(cluster.command("squeue", "-h", "-r").splitlines()) == 1, PATIENCE_S)
    first = sweep(project)
    time.sleep(project.settings.slurm["test"].poll)  # an answer of Slurm's serves everybody for so long
    second = sweep(project)
    done = Counter(first.settled) + Counter(second.settled)
    assert done["failed"] == 1 and second.left == 1
    toy.go()
    assert wait(lambda: not jobs.open_jobs(project) or not sweep(project).left, PATIENCE_S)
    toy.settled()
    assert states(toy.make("A001", "A002")) == {"A001": "hit", "A002": "hit"}


def test_ctrl_c_withdraws_what_waits_and_keeps_what_runs(cohort: Callable[..., Cohort], cluster: Slurm) -> None:
    toy = cohort(4, "in_flight = 2\n")
    for name in toy.names:
        toy.tell(name, "wait")
    run = toy.process()
    begun(toy, "A000", "A001")
    run.send_signal(signal.SIGINT)
    assert wait(lambda: len(cluster.command("squeue", "-h", "-r").splitlines()) == 2, PATIENCE_S)
    toy.go()
    out, err = run.communicate(timeout=PATIENCE_S)
    assert run.returncode != 0 and "withdrawing queued jobs" in err
    assert "A000 made" not in out  # a list is never returned; they are in the catalog
    toy.settled()
    assert toy.begun() == {"A000": 1, "A001": 1}
    assert Counter(states(toy.make()).values()) == {"hit": 2, "made": 2}


def test_a_second_ctrl_c_cancels_and_nothing_is_left_running(cohort: Callable[..., Cohort], cluster: Slurm) -> None:
    toy = cohort(4)
    for name in toy.names:
        toy.tell(name, "wait")
    run = toy.process()
    begun(toy, *toy.names)
    told = threading.Thread(target=run.communicate)
    run.send_signal(signal.SIGINT)
    assert not wait(lambda: run.poll() is not None, 2)
    run.send_signal(signal.SIGINT)
    told.start()
    assert wait(lambda: run.poll() is not None, PATIENCE_S)
    told.join()
    assert wait(lambda: not cluster.command("squeue", "-h"), PATIENCE_S)
    toy.settled()


def test_ctrl_c_cancels_no_others_of_a_left_array(cohort: Callable[..., Cohort], cluster: Slurm) -> None:
    toy = cohort(3)
    for node in ("n1", "n2"):
        cluster.command("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    run = toy.process()
    assert wait(lambda: bool(toy.rows()) and toy.rows()[0]["job"] is not None, PATIENCE_S)
    run.kill()
    run.wait()
    answer = next((toy.project.work / "together").glob("slurm-*/queue.json"), None)
    if answer is not None:
        answer.unlink()
    second = toy.process("A001")
    assert wait(lambda: any((toy.project.work / "together").glob("slurm-*/queue.json")), PATIENCE_S)
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=PATIENCE_S)
    assert cluster.command("squeue", "-h", "-r", "-o", "%K").split() == ["0", "2"]
    for node in ("n1", "n2"):
        cluster.command("scontrol", "update", f"nodename={node}", "state=resume")
    assert set(states(toy.make()).values()) <= {"made", "hit"}
    toy.settled()


def test_fail_fast_withdraws_what_waits_and_keeps_what_runs(cohort: Callable[..., Cohort]) -> None:
    toy = cohort(4, "in_flight = 2\n")
    toy.tell("A000", "fail later")
    for name in toy.names[1:]:
        toy.tell(name, "wait")
    found: dict[str, str] = {}
    with on_failure("fast"):
        run = threading.Thread(target=contextvars.copy_context().run, args=(lambda: found.update(states(toy.make())),))
        run.start()
    begun(toy, "A000", "A001")
    toy.later()
    assert wait(lambda: any(row["state"] == "FAILED" for row in toy.rows()), PATIENCE_S)
    toy.go()
    run.join(PATIENCE_S)
    assert found.pop("A000") == "failed" and set(found.values()) == {"made"}
    assert "A003" not in toy.begun(), "at most the one that Slurm began before it was known"
    toy.settled()


def test_a_restart_leaves_the_jobs_to_the_next_run(cohort: Callable[..., Cohort], submissions: Path) -> None:
    toy = cohort(3)
    for name in toy.names:
        toy.tell(name, "wait")
    run = toy.process()
    begun(toy, *toy.names)
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=PATIENCE_S)
    assert "stay in Slurm" in err
    toy.go()
    assert set(states(toy.make()).values()) <= {"made", "hit"}
    assert submitted(submissions) == 1
    assert toy.begun() == Counter(toy.names)
    toy.settled()


def test_sbatchs_words_on_a_bad_profile_are_everywhere(cohort: Callable[..., Cohort]) -> None:
    toy = cohort(2, 'partition = "nowhere"\n')
    found = toy.make()
    assert states(found) == dict.fromkeys(toy.names, "failed")
    words = r"profile test: .*[Ii]nvalid partition.*\[slurm.test\] in ct.toml"
    assert all(re.search(words, one.why) for one in found.values())
    for command in (("why", "counted/A000"), ("jobs", "--all"), ("logs", "counted/A000")):
        said = ct("-C", str(toy.project.root), *command)
        assert re.search("[Ii]nvalid partition", said.out + said.err), command
    toy.settled()
