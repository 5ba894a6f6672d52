"""Slurm is asked by one process for all of a project: how often, and that no answer is taken for a newer one."""

import multiprocessing
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from ctcore.execution.slurm.status_cache import Answer, Answers
from tests.helpers.cluster_runs import PROFILE, Cohort
from tests.helpers.fake_slurm import FakeSlurm
from tools.slurm.processes import wait

RUNS = 4
PATIENCE_S = 60
QUICK = PROFILE.replace("grace = 2", "grace = 0.5").replace("poll = 1", "poll = 0.5")
forked = multiprocessing.get_context("fork")
Process = multiprocessing.context.ForkProcess


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return Cohort(tmp_path_factory.mktemp("answers") / "toy", 1, QUICK)


@pytest.fixture
def toy(built: Cohort) -> Cohort:
    """Nothing was asked yet."""
    shutil.rmtree(built.project.work / "together", ignore_errors=True)
    return built


def ended_well(runs: Sequence[Process]) -> bool:
    for run in runs:
        run.join(PATIENCE_S)
    ended = [run.exitcode for run in runs]
    for run in runs:
        run.kill()
    return ended == [0] * len(runs)


def lines(state: str) -> str:
    return "".join(f"{at}_0|NAME|{state}|None|n1|0:05|0|\n" for at in range(1, RUNS + 1))


def test_many_runs_of_a_project_ask_as_often_as_one(fake: FakeSlurm, tmp_path: Path) -> None:
    toy = Cohort(tmp_path / "many", RUNS, QUICK)
    fake.says("queue", lines("PENDING"))
    runs = [forked.Process(target=toy.make, args=(name,)) for name in toy.names]
    for run in runs:
        run.start()
    assert wait(lambda: fake.count("asked") > 0, PATIENCE_S)
    began = time.monotonic()
    assert wait(lambda: fake.count("submitted") == RUNS and time.monotonic() > began + 1.5, PATIENCE_S)
    fake.says("queue", lines("DEADLINE"))
    assert ended_well(runs)
    assert {row["state"] for row in toy.rows()} == {"DEADLINE"}
    toy.settled()
    polls = (time.monotonic() - began) / 0.5
    assert fake.count("asked") <= 2 + polls


def test_an_answer_is_as_new_as_its_reader_wants(fake: FakeSlurm, toy: Cohort) -> None:
    """The queue says how often it has changed; three processes want what it says now."""
    queue = fake.folder / "queue"

    def change(version: int) -> None:
        part = queue.with_suffix(".part")
        part.write_text(f"1_0|ct-toy-1|RUNNING|{version}|n1|0:05|0|\n")
        part.rename(queue)

    def look() -> None:
        for _ in range(8):
            least = int(queue.read_text().split("|")[3])
            answer = Answers(toy.project, PATIENCE_S).queue(after=time.monotonic())
            assert answer is not None and answer.rows is not None
            assert int(answer.rows["ct-toy-1", "1_0"].reason) >= least

    change(0)
    readers = [forked.Process(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    version = 0
    while any(reader.is_alive() for reader in readers):
        change(version := version + 1)
        time.sleep(0.005)
    assert ended_well(readers)
    assert 8 <= fake.count("asked") <= 24


def test_an_older_answer_does_not_make_a_job_gone(fake: FakeSlurm, tmp_path: Path) -> None:
    toy = Cohort(tmp_path / "toy", 1, PROFILE.replace("poll = 1", "poll = 2").replace("grace = 2", "grace = 0"))
    first = forked.Process(target=toy.make)
    first.start()
    assert wait(lambda: bool(toy.rows()) and toy.rows()[0]["job"] is not None, PATIENCE_S)
    first.kill()
    first.join()
    old = Answers(toy.project, PATIENCE_S).queue(after=time.monotonic())
    assert old is not None and old.rows == {}
    fake.queue("DEADLINE")
    assert toy.make()["A000"].state == "failed"
    assert [row["state"] for row in toy.rows()] == ["DEADLINE"]
    assert fake.count("submitted") == 1


def test_a_killed_asker_holds_nobody_up(fake: FakeSlurm, toy: Cohort) -> None:
    fake.says("hangs")
    asking = forked.Process(target=Answers(toy.project).queue, args=(3.0,))
    asking.start()
    assert wait(lambda: fake.count("asked") == 1, PATIENCE_S)
    assert Answers(toy.project).queue(3.0) is None
    asking.kill()
    asking.join()
    fake.takes_back("hangs")
    answer = Answers(toy.project).queue(3.0)
    assert answer is not None and answer.rows == {}
    assert fake.count("asked") == 2


def test_without_a_shared_place_each_process_asks_itself(fake: FakeSlurm, toy: Cohort) -> None:
    place = toy.project.work / "together"
    place.parent.mkdir(exist_ok=True)
    place.write_text("no folder")
    one, other = Answers(toy.project), Answers(toy.project)
    try:
        assert one.queue(60) == one.queue(60)
        assert fake.count("asked") == 1
        assert other.queue(60) is not None
        assert fake.count("asked") == 2
    finally:
        place.unlink()


@pytest.mark.parametrize("text", ["", "[]", '{"clock": 7}', '{"rows": [{"id": 7}]}'])
def test_an_answer_that_cannot_be_read_is_none(fake: FakeSlurm, toy: Cohort, text: str) -> None:
    Answers(toy.project).queue(60)
    (path,) = (toy.project.work / "together").glob("slurm-*/queue.json")
    path.write_text(text)
    assert Answers(toy.project).queue(60) is not None
    assert fake.count("asked") == 2


def test_answers_of_other_hosts_or_before_the_start_are_none(fake: FakeSlurm, toy: Cohort) -> None:
    Answers(toy.project).queue(60)
    (path,) = (toy.project.work / "together").glob("slurm-*/queue.json")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    path.write_text(path.read_text().replace(boot, boot[::-1]))
    Answers(toy.project).queue(60)
    assert fake.count("asked") == 2
    Answers(toy.project).queue(60)
    assert fake.count("asked") == 2


def test_that_slurm_does_not_answer_is_an_answer_for_all(fake: FakeSlurm, toy: Cohort) -> None:
    fake.says("down")
    assert [Answers(toy.project).queue(60) for _ in range(3)] == [Answers(toy.project).queue(60)] * 3
    assert fake.count("asked") == 1
    fake.takes_back("down")
    answer = Answers(toy.project).queue(after=time.monotonic())
    assert answer is not None and answer.rows == {}


def test_accounting_is_asked_once_for_everybody(fake: FakeSlurm, toy: Cohort) -> None:
    began = time.monotonic()
    assert of(Answers(toy.project).account(["1"], 60), "1", began)
    for array in ("2", "3"):
        assert not of(Answers(toy.project).account([array], 60), array, began)
    assert fake.count("accounted") == 1
    later = time.monotonic()
    assert of(Answers(toy.project).account(["2"]), "2", later)
    assert of(Answers(toy.project).account(["3"], 60), "3", later)
    assert fake.count("accounted") == 2
    assert not of(Answers(toy.project).account(["3"], 60), "3", time.monotonic())
    assert not of(Answers(toy.project).account(["1"], 60), "1", began)


def of(answer: Answer | None, array: str, after: float) -> bool:
    return answer is not None and answer.is_of(array, after)
