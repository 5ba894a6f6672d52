"""What a runner makes of every answer of Slurm, and of none: with one that says what the test wants."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.tables import lease
from ctcore.execution.materialize import Outcome
from ctcore.execution.slurm import client, jobs
from ctcore.execution.slurm.client import TaskStatus
from ctcore.execution.slurm.reconcile import sweep
from ctcore.util.processes import process_name
from tests.helpers.cluster_runs import QUICK, RETRIED, Cohort
from tests.helpers.fake_slurm import FakeSlurm
from tests.helpers.kit import again, change, make
from tests.helpers.shell import environment

LIMIT_S = 180


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """A run that waits for what never comes fails its test, and does not hold up the others."""

    def late(*_: object) -> None:
        pytest.fail(f"it has not ended in {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def toy(tmp_path: Path) -> Cohort:
    return Cohort(tmp_path / "toy", 1, QUICK)


def made(toy: Cohort) -> Outcome:
    return toy.make()["A000"]


@pytest.fixture
def later() -> Iterator[Callable[[float, Callable[[], object]], None]]:
    timers: list[threading.Timer] = []

    def plan(seconds: float, do: Callable[[], object]) -> None:
        timers.append(threading.Timer(seconds, do))
        timers[-1].start()

    yield plan
    for timer in timers:
        timer.cancel()


@pytest.mark.parametrize("state", ["NODE_FAIL", "BOOT_FAIL", "LAUNCH_FAILED", "RECONFIG_FAIL", "PREEMPTED", "REVOKED"])
def test_the_clusters_faults_are_resubmitted_and_are_no_try(fake: FakeSlurm, toy: Cohort, state: str) -> None:
    fake.queue(state)
    fake.runs(2)
    assert made(toy).state == "made"
    assert [(row["state"], row["tries"], row["requeues"]) for row in toy.rows()] == [(state, 1, 0), ("COMPLETED", 1, 1)]
    toy.settled()


@pytest.mark.parametrize(("state", "what"), [("OUT_OF_MEMORY", "memory_mb"), ("TIMEOUT", "minutes")])
def test_what_was_not_enough_is_submitted_again_with_more(fake: FakeSlurm, toy: Cohort, state: str, what: str) -> None:
    fake.queue(state)
    fake.runs(2)
    assert made(toy).state == "made"
    first, second = toy.rows()
    assert (first["state"], second["tries"]) == (state, 2)
    assert second[what] > first[what]  # type: ignore[operator]


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED", "DEADLINE"])
def test_an_end_without_a_record_is_a_failure_that_names_it(fake: FakeSlurm, toy: Cohort, state: str) -> None:
    fake.queue(state, exit_code=256)
    found = made(toy)
    assert found.state == "failed" and f"Slurm job 1_0 {state} on n1" in found.why
    assert fake.count("submitted") == 1
    toy.settled()


def test_a_job_that_only_accounting_knows_is_judged_by_it(fake: FakeSlurm, toy: Cohort) -> None:
    fake.says("queue")
    fake.account("TIMEOUT")
    fake.runs(2)
    assert made(toy).state == "made"
    first = toy.rows()[0]
    assert (first["state"], first["used_mb"], first["cpu_s"]) == ("TIMEOUT", 50.0, 1.0)


@pytest.mark.parametrize("accounting", ["", "Slurm accounting storage is disabled"])
def test_a_job_that_nobody_knows_is_submitted_again(fake: FakeSlurm, toy: Cohort, accounting: str) -> None:
    """Also where accounting believes that it runs: the queue knows better."""
    fake.says("queue")
    fake.says("no_accounting", accounting) if accounting else fake.account("RUNNING")
    fake.runs(2)
    assert made(toy).state == "made"
    assert [row["state"] for row in toy.rows()] == ["GONE", "COMPLETED"]


def test_accounting_that_learns_late_of_an_end_is_asked_again(fake: FakeSlurm, tmp_path: Path) -> None:
    toy = Cohort(tmp_path / "toy", 1, QUICK.replace("grace = 0.5", "grace = 3"))
    fake.says("queue")
    fake.account("RUNNING")
    run = toy.process()
    assert _until(lambda: fake.count("accounted") > 0, 60)
    fake.account("DEADLINE")
    run.communicate()
    assert [row["state"] for row in toy.rows()] == ["DEADLINE"]
    assert fake.count("submitted") == 1


@pytest.mark.parametrize("who", ["queue", "account"])
def test_a_reused_array_number_says_nothing_of_ours(fake: FakeSlurm, toy: Cohort, who: str) -> None:
    """A controller that was killed forgets what it accepted last, and gives the number again."""
    fake.says("queue")
    line = {"queue": "1_0|another|FAILED|None|n1|0:05|256|", "account": "1_0|another|FAILED|1:0|n1|5|00:01|"}
    fake.says(who, f"{line[who]}\n")
    fake.runs(2)
    assert made(toy).state == "made"
    assert [row["state"] for row in toy.rows()] == ["GONE", "COMPLETED"]


def test_nothing_is_judged_while_the_queue_does_not_answer(
    fake: FakeSlurm, toy: Cohort, later: Callable[[float, Callable[[], object]], None]
) -> None:
    fake.says("down")
    fake.queue("FAILED", exit_code=256)
    seen: list[int] = []
    later(3, lambda: seen.append(len(jobs.open_jobs(again(toy.project)))))
    later(3.5, lambda: fake.takes_back("down"))
    assert made(toy).state == "failed"
    assert seen == [1]


def test_silent_accounting_judges_no_job_unknown_to_the_queue(
    fake: FakeSlurm, toy: Cohort, later: Callable[[float, Callable[[], object]], None]
) -> None:
    fake.says("queue")
    fake.says("no_accounting", "sacct: error: slurm_persist_conn_open: failed to open persistent connection")
    later(3, lambda: fake.account("DEADLINE"))
    later(3, lambda: fake.takes_back("no_accounting"))
    assert "DEADLINE" in made(toy).why


def test_a_result_counts_though_slurm_says_nothing_at_all(fake: FakeSlurm, toy: Cohort) -> None:
    fake.says("down")
    fake.says("no_accounting", "sacct: error: no connection")
    fake.runs(1)
    assert made(toy).state == "made"
    toy.settled()


def test_a_result_counts_whatever_slurm_calls_its_job(fake: FakeSlurm, toy: Cohort) -> None:
    fake.queue("NODE_FAIL")
    fake.runs(1)
    assert made(toy).state == "made"
    assert fake.count("submitted") == 1


def test_a_result_counts_though_its_job_died_before_its_record(
    fake: FakeSlurm, toy: Cohort, tmp_path: Path, later: Callable[[float, Callable[[], object]], None]
) -> None:
    fake.queue("RUNNING")

    def publish_and_die() -> None:
        assert _until(lambda: bool(toy.rows()) and toy.rows()[0]["job"] is not None, 60)
        (call,) = (toy.project.work / "slurm").glob("*/calls/0.json")
        program = [sys.executable, "-m", "ctcore.execution.slurm.worker"]
        record_elsewhere = [*program, str(tmp_path / "elsewhere" / "work"), str(toy.project.store.root), str(call)]
        subprocess.run(record_elsewhere, env=environment(), check=True)
        fake.queue("NODE_FAIL")

    later(0, publish_and_die)
    assert made(toy).state == "made"
    assert (fake.count("submitted"), toy.begun()) == (1, {"A000": 1})
    toy.settled()


def test_an_error_of_a_step_waits_for_what_slurm_says_of_it(fake: FakeSlurm, toy: Cohort) -> None:
    toy.tell("A000", "fail")
    fake.queue("COMPLETING")
    fake.runs(1)
    assert "no luck" in made(toy).why
    fake.queue("OUT_OF_MEMORY", "OUT_OF_MEMORY", "OUT_OF_MEMORY", "OUT_OF_MEMORY")
    fake.runs(2, 3, 4)
    found = made(toy)
    assert found.state == "failed" and "more memory" in found.why and "try 3" in found.why
    assert [row["memory_mb"] for row in toy.rows()] == [102, 102, 204, 408]


def test_the_cluster_is_not_at_fault_for_ever(fake: FakeSlurm, toy: Cohort) -> None:
    fake.queue(*["NODE_FAIL"] * 20)
    found = made(toy)
    assert found.state == "failed" and "10 times" in found.why
    assert fake.count("submitted") == 11


def test_a_scheduler_that_takes_no_jobs_now_is_asked_again(
    fake: FakeSlurm, toy: Cohort, later: Callable[[float, Callable[[], object]], None]
) -> None:
    fake.says("refuse", "sbatch: error: Unable to contact slurm controller (connect failure)")
    later(2, lambda: fake.takes_back("refuse"))
    fake.runs(1)
    assert made(toy).state == "made"
    assert fake.count("submitted") == 1


def test_a_taken_submission_is_found_after_a_failed_sbatch(fake: FakeSlurm, toy: Cohort) -> None:
    fake.queue("RUNNING")
    fake.says("taken_but", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    fake.runs(1)
    assert made(toy).state == "made"
    assert fake.count("submitted") == 1
    assert toy.rows()[0]["job"] == "1"


@pytest.mark.parametrize("said", ["", "sbatch: lua: welcome\nnone", "7 of 9"])
def test_a_taken_submission_is_found_whatever_was_printed(fake: FakeSlurm, toy: Cohort, said: str) -> None:
    fake.queue("RUNNING")
    fake.says("mumbles", said)
    fake.runs(1)
    assert made(toy).state == "made"
    assert (fake.count("submitted"), toy.rows()[0]["job"]) == (1, "1")
    toy.settled()


@pytest.mark.parametrize("said", ["sbatch: error: something quite new", "Segmentation fault"])
def test_a_taken_submission_is_found_after_any_error(fake: FakeSlurm, toy: Cohort, said: str) -> None:
    fake.queue("RUNNING")
    fake.says("taken_but", said)
    fake.runs(1)
    assert made(toy).state == "made"
    assert fake.count("submitted") == 1


def test_an_end_of_which_nobody_can_say_why_is_a_try(fake: FakeSlurm, tmp_path: Path) -> None:
    """Where accounting is disabled, a job that was killed leaves nothing but its absence. Each time it waits longer."""
    toy = Cohort(tmp_path / "toy", 1, QUICK.replace("grace = 0.5", "grace = 1"))
    fake.says("queue")
    fake.says("no_accounting", "Slurm accounting storage is disabled")
    found = made(toy)
    assert (
        found.state == "failed" and "nobody can say why it ended" in found.why and "Resources(memory_gb=" in found.why
    )
    assert fake.count("submitted") == 3
    assert [row["tries"] for row in toy.rows()] == [1, 2, 3]
    first, second, third = (datetime.fromisoformat(str(row["intended_at"])).timestamp() for row in toy.rows())
    assert second - first > 1 + 1 - 0.1 and third - second > 1 + 2 - 0.1, "the grace for a record, and the pause"
    toy.settled()


@pytest.mark.parametrize("runs", [True, False])
def test_where_accounting_never_answers_the_results_decide(
    fake: FakeSlurm, toy: Cohort, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    monkeypatch.setattr("ctcore.execution.slurm.runner.SILENCE_S", 1.5)
    monkeypatch.setattr("ctcore.execution.slurm.client.ACCOUNTING_S", 0.5)
    fake.says("queue")
    fake.says("sleeps")
    fake.runs(*([2] if runs else []))
    found = made(toy)
    assert found.state == ("made" if runs else "failed")
    toy.settled()


def test_a_question_to_accounting_has_a_limit_of_its_own(fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ACCOUNTING_S", 0.2)
    fake.says("sleeps")
    began = time.monotonic()
    assert client.account(["1"]) is None
    assert time.monotonic() - began < 30


def test_a_held_job_is_cancelled_and_made_by_another(fake: FakeSlurm, toy: Cohort) -> None:
    fake.says("queue", "1_0|NAME|PENDING|launch failed requeued held|n1|0:00|0|\n")
    fake.runs(2)
    assert made(toy).state == "made"
    assert {*(fake.folder / "cancelled").read_text().split()} == {"1_0"}
    toy.settled()


def test_a_held_job_of_the_last_try_is_cancelled_at_its_end(
    fake: FakeSlurm, toy: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run asks no more, and the next look for what nobody needs may be days away."""
    monkeypatch.setattr("ctcore.execution.slurm.states.REQUEUES", 0)
    fake.says("queue", "1_0|NAME|PENDING|launch failed requeued held|n1|0:00|0|\n")
    found = made(toy)
    assert found.state == "failed" and "Slurm holds it back" in found.why
    assert (fake.folder / "cancelled").read_text() == "1_0\n"
    toy.settled()


@pytest.mark.parametrize("by", ["a run", "a sweep", "a sweep for a dead run"])
def test_a_job_that_waits_though_its_work_is_done_is_cancelled(
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """A controller that had forgotten it has found it again."""
    monkeypatch.setattr("ctcore.execution.slurm.reconcile.LEFT_S", 0.0)
    toy = Cohort(tmp_path / "toy", 2, QUICK)
    fake.queue("NODE_FAIL")
    fake.runs(2)
    assert toy.make("A000")["A000"].state == "made"
    assert fake.count("cancelled") == 0
    if by == "a sweep for a dead run":
        fake.says("down")
        run = toy.process("A001")
        assert _until(lambda: toy.rows()[-1]["job"] == "3", 60)
        run.kill()
        run.communicate()
        fake.takes_back("down")
    fake.says("queue", "1_0|NAME|PENDING|JobHeldAdmin|n1|0:00|0|\n3_0|NAME|NODE_FAIL|None|n1|0:05|0|\n")
    if by != "a run":
        sweep(again(toy.project))
    else:
        fake.runs(4)
        assert toy.make("A001")["A001"].state == "made"
    assert {*(fake.folder / "cancelled").read_text().split()} == {"1_0"}


def test_a_try_beyond_the_cluster_fails_as_what_it_was(
    fake: FakeSlurm, toy: Cohort, later: Callable[[float, Callable[[], object]], None]
) -> None:
    fake.queue("OUT_OF_MEMORY")

    def refuse_the_second() -> None:
        if _until(lambda: fake.count("submitted") == 1):
            fake.says("refuse", "sbatch: error: Memory specification can not be satisfied")

    later(0, refuse_the_second)
    found = made(toy)
    assert found.state == "failed"
    assert "needed more memory" in found.why and "can not be satisfied" in found.why
    toy.settled()


def test_one_question_for_all_and_fewer_while_nothing_changes(
    fake: FakeSlurm, tmp_path: Path, later: Callable[[float, Callable[[], object]], None]
) -> None:
    toy = Cohort(tmp_path / "many", 30, QUICK)
    fake.says("queue", "".join(f"1_{at}|NAME|PENDING|Priority||0:00|0|\n" for at in range(30)))
    fail = "".join(f"1_{at}|NAME|DEADLINE|None||0:00|0|\n" for at in range(30))
    asked_at: list[float] = []

    def end_all() -> None:
        if _until(lambda: fake.count("asked") > 0, 60):
            asked_at.append(time.monotonic())
            time.sleep(5)
            fake.says("queue", fail)

    later(0, end_all)
    assert {one.state for one in toy.make().values()} == {"failed"}
    assert time.monotonic() - asked_at[0] < 12
    assert 4 <= fake.count("asked") <= 9
    assert fake.count("accounted") == 1


def test_a_sweep_believes_a_state_when_it_has_seen_it_twice(fake: FakeSlurm, toy: Cohort) -> None:
    fake.queue("RUNNING")
    run = toy.process()
    assert _until(lambda: bool(toy.rows()) and toy.rows()[0]["job"] is not None)
    project = again(toy.project)
    assert sweep(project).left == 0  # a living run waits for it
    run.kill()
    run.communicate()
    fake.queue("TIMEOUT")
    assert sweep(project).left == 1
    assert sweep(project).settled == {"more-time": 1}
    assert sweep(project).left == 0
    toy.settled()


def test_a_sweep_finds_by_name_what_a_dying_run_submitted(fake: FakeSlurm, toy: Cohort) -> None:
    fake.says("lingers")
    run = toy.process()
    assert _until((fake.folder / "begun").exists, 60)
    run.kill()
    run.communicate()
    assert [row["job"] for row in toy.rows()] == [None]
    fake.says("queue")
    assert sweep(again(toy.project)).left == 1, "Slurm has nothing of that name: the next run looks for it"
    fake.queue("TIMEOUT")
    fake.takes_back("lingers")
    assert _until(lambda: fake.count("submitted") == 1)
    assert sweep(again(toy.project)).left == 1
    assert [row["job"] for row in toy.rows()] == ["1"]
    assert sweep(again(toy.project)).settled == {"more-time": 1}
    toy.settled()


def test_a_sweep_leaves_a_new_runs_jobs_alone(fake: FakeSlurm, toy: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    first = toy.process()
    assert _until(lambda: bool(toy.rows()) and toy.rows()[0]["job"] is not None)
    first.kill()
    first.communicate()
    fake.queue("TIMEOUT")
    project, answer = again(toy.project), client.queue()
    assert sweep(project).left == 1
    fake.says("down")
    begun: list[subprocess.Popen[str]] = []

    def answer_late() -> list[TaskStatus] | None:
        begun.append(toy.process())
        assert _until(lambda: owner(toy) == process_name(begun[0].pid))
        return answer

    monkeypatch.setattr(client, "queue", answer_late)
    try:
        found = sweep(project)
        assert (found.settled, len(jobs.open_jobs(project))) == ({}, 1)
        assert owner(toy) == process_name(begun[0].pid)
    finally:
        begun[0].kill()
        begun[0].communicate()


def test_a_sweep_that_fails_holds_nothing_afterwards(
    fake: FakeSlurm, toy: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = toy.process()
    assert _until(lambda: bool(toy.rows()) and toy.rows()[0]["job"] is not None)
    run.kill()
    run.communicate()
    fake.queue("TIMEOUT")
    project = again(toy.project)
    assert sweep(project).left == 1
    monkeypatch.setattr(jobs, "settle", lambda *_: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(OSError, match="no room"):
        sweep(project)
    assert owner(toy) is None


def owner(toy: Cohort) -> str | None:
    """Who holds the only lease."""
    with again(toy.project).catalog.read() as connection:
        return connection.execute(select(lease.c.owner)).scalar()


def test_a_sweep_does_nothing_where_slurm_says_nothing(fake: FakeSlurm, toy: Cohort) -> None:
    fake.queue("RUNNING")
    run = toy.process()
    assert _until(lambda: bool(toy.rows()) and toy.rows()[0]["job"] is not None)
    run.kill()
    run.communicate()
    fake.says("down")
    for _ in range(3):
        found = sweep(again(toy.project))
        assert (found.left, found.settled, found.answered) == (1, {}, False)


def _until(done: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)
    return done()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:05", 5),
        ("1:02:03", 3723),
        ("1-02:03:04", 93784),
        ("00:01.500", 1.5),
        ("17", 17),
        ("INVALID", None),
        ("", None),
    ],
)
def test_times_of_slurm_are_read(text: str, seconds: float | None) -> None:
    assert client.seconds(text) == seconds


def test_a_queue_line_is_read_with_anything_in_its_reason(fake: FakeSlurm) -> None:
    fake.says(
        "queue", "7_3|ct-x-1|PENDING|(a|b) Resources||0:00|0|\n8|other|FAILED|NonZeroExitCode|n[1-2]|1:00|768|\nodd\n"
    )
    assert client.queue() == [
        TaskStatus("7_3", "ct-x-1", "PENDING", "(a|b) Resources", None, 0.0, "0:0"),
        TaskStatus("8", "other", "FAILED", "NonZeroExitCode", "n[1-2]", 60.0, "3:0"),
    ]


def test_no_slurm_at_all_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert client.queue() is None
    assert client.account(["1"]) is None
    assert client.largest_array() is None
    assert not client.cancel(["1"])
    assert client.submit(tmp_path / "x.sh").later


def test_a_container_runs_the_step_with_setup_and_project(
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place of apptainer is taken by a program that notes what it is asked, and does it."""
    program = fake.programs / "apptainer"
    program.write_text(f'#!/bin/bash\necho "$READY $@" >> "{tmp_path}/asked"\nshift 4\nexec "$@"\n')
    program.chmod(0o755)
    more = f'container = "the image.sif"\npython = "{sys.executable}"\nsetup = ["export READY=ready"]\n'
    toy = Cohort(tmp_path / "toy", 1, QUICK + more)
    fake.runs(1)
    assert made(toy).state == "made"
    said = (tmp_path / "asked").read_text()
    assert said.startswith(
        f"ready exec --bind {toy.project.root} the image.sif {sys.executable} -P -m ctcore.execution.slurm"
    )


def test_ctrl_c_waits_then_cancels_then_leaves(fake: FakeSlurm, toy: Cohort) -> None:
    """On a cluster that does not end what it is told to end."""
    fake.queue("RUNNING")
    run = toy.process()
    assert run.stderr is not None
    said = []
    for line in run.stderr:
        if line.startswith(("submitted", "withdrawing", "cancelling")):
            said.append(line.split()[0])
            run.send_signal(signal.SIGINT)
        elif "stay in Slurm" in line:
            said.append("stay")
    assert run.wait(20) != 0
    assert said == ["submitted", "withdrawing", "cancelling", "stay"]
    assert [line.split() for line in (fake.folder / "cancelled").read_text().splitlines()] == [
        ["--state=PENDING", "1"],
        ["1"],
    ]
    assert len(jobs.open_jobs(again(toy.project))) == 1


def test_retries_follow_the_declaration_and_are_recorded(fake: FakeSlurm, tmp_path: Path) -> None:
    toy = Cohort(tmp_path / "toy", 1, QUICK, RETRIED)
    toy.tell("A000", "luck 2")
    fake.runs(1, 2, 3)
    assert made(toy).state == "made"
    assert [(row["tries"], row["why"]) for row in toy.rows()] == [
        (1, "ValueError: no luck yet with A000"),
        (2, "ValueError: no luck yet with A000"),
        (3, "made"),
    ]
    assert len({row["memory_mb"] for row in toy.rows()}) == 1
    toy.settled()


def test_after_the_last_try_it_has_failed(fake: FakeSlurm, tmp_path: Path) -> None:
    toy = Cohort(tmp_path / "toy", 1, QUICK, RETRIED)
    toy.tell("A000", "luck 9")
    fake.runs(1, 2, 3, 4)
    assert made(toy).state == "failed"
    assert fake.count("submitted") == 3
    toy.settled()


def test_a_cancelled_job_is_not_tried_again(fake: FakeSlurm, tmp_path: Path) -> None:
    toy = Cohort(tmp_path / "toy", 1, QUICK, RETRIED)
    fake.queue("CANCELLED")
    assert made(toy).state == "failed"
    assert fake.count("submitted") == 1


def test_on_this_machine_a_step_is_tried_again_as_often(tmp_path: Path) -> None:
    toy = Cohort(tmp_path / "toy", 3, QUICK, RETRIED)
    toy.tell("A000", "luck 2")
    toy.tell("A001", "luck 3")
    found = {one.node[1]: one for one in make(again(toy.project), "counted")}
    assert {name: one.state for name, one in found.items()} == {"A000": "made", "A001": "failed", "A002": "made"}
    assert toy.begun() == {"A000": 3, "A001": 3, "A002": 1}
    toy.settled()


def start_again(toy: Cohort) -> "subprocess.CompletedProcess[str]":
    """Slurm starts job 0 of the only batch once more, as a controller does that was killed and forgot its end."""
    (folder,) = (toy.project.work / "slurm").iterdir()
    command = ["bash", str(folder / "array.sh")]
    task = {**os.environ, "SLURM_ARRAY_TASK_ID": "0"}
    return subprocess.run(command, cwd=folder, env=task, capture_output=True, text=True, check=False)


def test_a_judged_job_that_starts_again_runs_nothing(fake: FakeSlurm, tmp_path: Path) -> None:
    toy = Cohort(tmp_path / "toy", 2, QUICK)
    toy.tell("A001", "fail")  # so that the batch's folder is kept
    fake.runs(1)
    assert {name: one.state for name, one in toy.make().items()} == {"A000": "made", "A001": "failed"}
    found = start_again(toy)
    assert (found.returncode, toy.begun()["A000"]) == (1, 1)
    assert "nobody waits for this call any more" in found.stdout + found.stderr
    toy.settled()


def test_an_unjudged_job_that_starts_again_runs_once(fake: FakeSlurm, toy: Cohort) -> None:
    fake.queue("RUNNING")
    run = toy.process()
    assert _until(lambda: bool(toy.rows()) and toy.rows()[0]["job"] is not None, 60)
    run.kill()
    run.wait()
    first, second = start_again(toy), start_again(toy)
    assert (first.returncode, second.returncode, toy.begun()["A000"]) == (0, 0, 1)
    assert "made already" in second.stdout + second.stderr
    assert made(toy).state == "hit"
    toy.settled()


def test_a_restarted_job_makes_damaged_results_again(fake: FakeSlurm, toy: Cohort) -> None:
    fake.queue("RUNNING")
    run = toy.process()
    assert _until(lambda: bool(toy.rows()) and toy.rows()[0]["job"] is not None, 60)
    run.kill()
    run.wait()
    start_again(toy)
    (made_file,) = (toy.project.store.root / "counted" / "A000").glob("*/n.txt")
    before = change(made_file)
    assert start_again(toy).returncode == 0
    assert toy.begun()["A000"] == 2
    assert next((toy.project.store.root / "counted" / "A000").glob("*/n.txt")).read_bytes() == before
