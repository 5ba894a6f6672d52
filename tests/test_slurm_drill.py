"""A fault drill: backfills on a real cluster while processes are killed at random moments; each call once, in the end.

CT_DRILL_KILLS says how many kills (3: one backfill by the daemon; the whole drill has 30), CT_DRILL_SEED which ones.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations, count
from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.tables import artifact, lease, materialization
from ctcore.making import FOREIGN_S
from ctcore.project import Project
from ctcore.verify import verify
from tests.cluster_runs import OBEDIENT, PROFILE, Cohort
from tests.drivers import Alone, Daemon, Driver, Shell, told
from tests.kit import TOML, again
from tests.slurm import Slurm, for_tests
from tools.slurm.processes import wait

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("CT_DRILL_KILLS", "3"))
SEED = int(os.environ.get("CT_DRILL_SEED", "20"))
PARTITIONS = 100
A_BACKFILL = 3  # kills, at most
DRIVERS = (Alone, Daemon, Shell)
KINDS = ("run", "daemon", "controller", "accounting", "node", "node's daemon", "head node")
ONE_STEP = OBEDIENT.partition('@step(level="specimen"')[0]
OFTEN = TOML.replace("[run]", "[run]\nlook_every_s = 2\nretry_after_s = 2")
PATIENCE_S = 240.0
LOOK_S = 2.0  # how often the administrator looks
SLACK_S = 1.0  # accounting has whole seconds


class Drill:
    """One backfill: who drives it, the cluster under it, and what was done to them."""

    def __init__(self, slurm: Slurm, root: Path, chance: random.Random, how: type[Alone] | type[Daemon]) -> None:
        self.slurm, self.chance = slurm, chance
        if how is Daemon:
            Daemon.prepare(root / "toy")
        self.cohort = Cohort(root / "toy", PARTITIONS, profile=PROFILE, steps=ONE_STEP, toml=OFTEN)
        for name in self.cohort.names:
            self.cohort.tell(name, f"sleep {chance.uniform(0.1, 1.5):.2f}")
        self.project = self.cohort.project
        self.log: list[str] = []
        self.said = (root / "said").open("w+")
        self.began = time.monotonic()
        self.repairs = self.ghosts = 0
        self.driver: Driver = how(self.cohort, self.said)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What can be killed here."""
        return (*self.driver.kinds, "controller", "accounting", "node", "node's daemon", "head node")

    def strike(self, what: str) -> bool:
        """Kill something, and after a moment start it again. False where it was not there any more."""
        self.log.append(f"{time.monotonic() - self.began:.1f} s: {what}, {len(self.cohort.begun())} begun")
        strikes: dict[str, Callable[[], object]] = {
            "run": self._run,
            "daemon": self._dagster,
            "controller": lambda: self._daemon("slurmctld", self.slurm.cluster.stop),
            "accounting": lambda: self._daemon("slurmdbd"),
            "node": self._node,
            "node's daemon": lambda: self._daemon("n1"),
            "head node": self._head,
        }
        return strikes[what]() is not False

    def _run(self) -> bool:
        found = self.driver.kill_run()
        self._pause(1)
        self.driver.begin()
        return found

    def _dagster(self) -> bool:
        found = self.driver.kill_daemon()
        self._pause(3)
        self.driver.begin()
        return found

    def _daemon(self, piece: str, end: Callable[[str], None] | None = None) -> None:
        (end or self.slurm.cluster.kill)(piece)
        self._pause(4)
        self.slurm.start(piece)

    def _node(self) -> None:
        self.slurm.cluster.crash("n2")
        self._pause(4)
        self.slurm.start("n2")

    def _head(self) -> None:
        """All of ct and the controller at once; they come back in any order."""
        self.driver.kill()
        self.slurm.cluster.kill("slurmctld")
        if self.chance.random() < 0.5:
            self.driver.begin()
            self._pause(3)
            self.slurm.start("slurmctld")
        else:
            self.slurm.start("slurmctld")
            self.driver.begin()

    def _pause(self, most: float) -> None:
        time.sleep(self.chance.uniform(0, most))

    def comes_to(self, moment: "Moment") -> bool:
        """Whether the backfill still goes on when it has come so far."""
        begun = self._goes_on_until(lambda: self.cohort.begun().total() >= moment.calls)
        return begun and self.goes_on(moment.seconds)

    def goes_on(self, seconds: float) -> bool:
        """Whether the backfill still goes on after so long."""
        until = time.monotonic() + seconds
        return self._goes_on_until(lambda: time.monotonic() >= until)

    def _goes_on_until(self, reached: Callable[[], bool]) -> bool:
        until = time.monotonic() + PATIENCE_S
        while not reached() and time.monotonic() < until:
            self.repairs += self.slurm.administer()
            if wait(lambda: reached() or self.driver.over(), LOOK_S) and not reached():
                return False
        return not self.driver.over()

    def finish(self) -> None:
        """It ends by itself, and well."""
        ended = not self.goes_on(PATIENCE_S)
        self.said.seek(0)
        said = f"{self.log}\n{self.said.read()[-4000:]}"
        assert ended, (
            f"still going on after {PATIENCE_S} s: {self.driver.trouble()}\n{self.slurm.command('squeue')}\n{said}"
        )
        assert not (trouble := self.driver.trouble()), f"{trouble}\n{said}"

    def forget_ghosts(self) -> None:
        """What Slurm still lists though nothing works on it: a killed controller started ended tasks again, in vain."""
        queued = ("squeue", "-h", "-r", "-o", "%i")
        if not wait(lambda: not self.slurm.command(*queued), 10):
            ghosts = self.slurm.command(*queued).split()
            self.ghosts += len(ghosts)
            self.slurm.calm()

    def figures(self) -> str:
        took = time.monotonic() - self.began
        return f"{type(self.driver).__name__.lower()}, {took:.0f} s: {'; '.join(self.log) or 'no kill'}"

    def stop(self) -> None:
        self.driver.kill()
        self.said.close()


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """A cluster of its own: a killed controller gives numbers twice, and others look for theirs in accounting."""
    yield from for_tests()


@pytest.fixture
def drill(quiet_slurm: Slurm, tmp_path: Path) -> Iterator[Callable[[], Drill]]:
    """Backfills one after another, each driven by another one."""
    chance, numbers = random.Random(SEED), count(1)
    with ExitStack() as stack:

        def begin() -> Drill:
            number = next(numbers)
            (tmp_path / str(number)).mkdir()
            one = Drill(quiet_slurm, tmp_path / str(number), chance, DRIVERS[number % len(DRIVERS)])
            stack.callback(one.stop)
            return one

        yield begin


@dataclass(frozen=True)
class Moment:
    """So many seconds after so many calls have begun; of none, after the kill before."""

    calls: int
    seconds: float


def moments(chance: random.Random, apart_s: float) -> list[Moment]:
    """One in three kills hits what is only starting, or starting again; the others, jobs that run."""
    calls = sorted(chance.sample(range(1, PARTITIONS - 10), A_BACKFILL))
    late = [Moment(number, chance.uniform(0, 1)) for number in calls]
    early = Moment(0, chance.uniform(0, apart_s))
    return [early if chance.random() < 1 / 3 else moment for moment in late]


class Victims:
    """Each kind as often as every other, in an order that differs."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.waiting: list[str] = []

    def next(self, kinds: tuple[str, ...]) -> str:
        """One that can be killed now; the others wait for their turn."""
        if not set(self.waiting) & set(kinds):
            self.waiting += self.chance.sample(KINDS, len(KINDS))
        found = next(kind for kind in self.waiting if kind in kinds)
        self.waiting.remove(found)
        return found


def test_whatever_is_killed_during_backfills_each_partition_is_made_once(
    drill: Callable[[], Drill], capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    victims, kills = Victims(chance), Counter[str]()
    backfills: list[Drill] = []
    while kills.total() < KILLS:
        one = drill()
        backfills.append(one)
        for moment in moments(chance, one.driver.apart_s):
            if kills.total() < KILLS and one.comes_to(moment):
                what = victims.next(one.kinds)
                kills[what] += one.strike(what)
        one.finish()
        one.driver.kill()
        made_once(one.project, one.cohort.names, one.log)
        nothing_lost_or_doubled(one)
        if type(one.driver) is not Alone:
            dagster_knows(one)
        with capsys.disabled():
            print(f"\n{one.figures()}", end="", flush=True)
    with capsys.disabled():
        report(kills, backfills)


def made_once(project: Project, names: list[str], log: list[str]) -> None:
    """One artifact a partition, in the ledger and in the store; nothing damaged, nobody waited for."""
    project = again(project)
    with project.catalog.read() as connection:
        for table in (artifact, materialization):
            rows = connection.execute(select(table.c.partition).where(table.c.asset == "counted")).scalars()
            assert Counter(rows) == Counter(names), log
        assert connection.execute(select(lease)).all() == [], log
    folders = [path for path in (project.store.root / "counted").glob("*/*") if path.is_dir()]
    assert Counter(path.parent.name for path in folders) == Counter(names), log
    found = verify(project, deep=True)
    assert (found.artifacts, found.findings) == (len(names), ()), log
    project.store.sweep(FOREIGN_S)  # what a crashed node left behind; the next run would do this
    assert list((project.store.root / ".staging").glob("[!.]*")) == [], log


def nothing_lost_or_doubled(one: Drill) -> None:
    """Slurm has nothing left of it; a batch is one array; no key had two jobs at the same time."""
    rows = one.cohort.rows()
    assert [row for row in rows if row["ended_at"] is None] == [], one.log
    assert wait(lambda: not working(one.project), 30), (working(one.project), one.log)
    one.forget_ghosts()
    names = sorted({str(row["batch"]) for row in rows})
    lives = accounted(one.slurm, names)
    arrays = {name: {task.partition("_")[0] for task in lives[name]} for name in names}
    assert all(len(found) <= 1 for found in arrays.values()), (arrays, one.log)
    for row in rows:
        if row["job"] is not None:
            assert arrays[str(row["batch"])] <= {str(row["job"])}, (row, one.log)
    jobs: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        life = lives[str(row["batch"])].get(f"{row['job']}_{row['idx']}")
        if life is not None:
            jobs.setdefault(str(row["partition"]), []).append(life)
    for partition, found in jobs.items():
        for first, second in combinations(sorted(found), 2):
            assert first[1] <= second[0] + SLACK_S, (partition, first, second, one.log)


def working(project: Project) -> list[str]:
    """Processes that make something for this project, whatever Slurm believes of them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().decode().split("\0")
            if "ctcore.slurm.worker" in words and str(project.work) in words:
                found.append(path.parent.name)
    return found


def accounted(slurm: Slurm, names: list[str]) -> dict[str, dict[str, tuple[float, float]]]:
    """Of each batch by its name: its tasks, each from its submission to its end, when accounting has all of them."""
    columns = "--format=JobName,JobID,Submit,End"

    def lines() -> list[list[str]]:
        said = slurm.command("sacct", "--duplicates", "-X", "-n", "-P", f"--name={','.join(names)}", columns)
        return [line.split("|") for line in said.splitlines()]

    wait(lambda: all(line[3] != "Unknown" for line in lines()), 10)
    found: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in names}
    for name, task, *times in lines():
        # nothing is queued: one without an end was lost by a killed controller before it had written it down
        moments = [datetime.fromisoformat(text).timestamp() for text in times if text != "Unknown"]
        submitted, end = moments[0], moments[-1]
        before = found[name].get(task, (submitted, end))
        found[name][task] = min(before[0], submitted), max(before[1], end)
    return found


def dagster_knows(one: Drill) -> None:
    """Every partition is materialized there too, and no run is believed to go on."""
    known, active = told(one.project)
    assert (known, active) == (set(one.cohort.names), []), one.log


def report(kills: Counter[str], backfills: list[Drill]) -> None:
    """The figures of the drill."""
    rows = [row for one in backfills for row in one.cohort.rows()]
    begun = sum(one.cohort.begun().total() for one in backfills)
    print(
        f"\n{kills.total()} kills ({', '.join(f'{n} {what}' for what, n in kills.items())}) in {len(backfills)} "
        f"backfills of {PARTITIONS} partitions: {sum(one.driver.begun for one in backfills)} times begun, "
        f"{len({row['batch'] for row in rows})} arrays, {len(rows)} jobs, {begun} calls begun, "
        f"{sum(one.repairs for one in backfills)} nodes and tasks released, "
        f"{sum(one.ghosts for one in backfills)} ghosts in the queue, "
        f"{len(backfills) * PARTITIONS} artifacts"
    )
