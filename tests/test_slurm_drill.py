"""A fault drill: backfills on a real cluster while processes are killed at random moments; each call once, in the end.

CT_DRILL_KILLS says how many kills (6; the whole drill has 30), CT_DRILL_SEED which ones.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import datetime
from itertools import combinations, count
from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.tables import artifact, lease, materialization
from ctcore.making import FOREIGN_S
from ctcore.project import Project
from ctcore.slurm.choose import VARIABLE
from ctcore.verify import verify
from tests.cluster_runs import RUN, Cohort
from tests.kit import again
from tests.shell import command, environment, quiet_dagster
from tests.slurm import Slurm
from tools.slurm.processes import wait

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("CT_DRILL_KILLS" not in os.environ, reason="the drill is young: CT_DRILL_KILLS=6 runs it"),
]
KILLS = int(os.environ.get("CT_DRILL_KILLS", "6"))
SEED = int(os.environ.get("CT_DRILL_SEED", "20"))
PARTITIONS = 100
A_BACKFILL = 3  # kills, at most
PATIENCE_S = 120.0
LOOK_S = 2.0  # how often the administrator looks
SLACK_S = 1.0  # accounting has whole seconds


class Drill:
    """One backfill: the run process, the cluster under it, and what was done to them."""

    def __init__(self, slurm: Slurm, root: Path, chance: random.Random, through_dagster: bool) -> None:
        self.slurm, self.chance, self.through_dagster = slurm, chance, through_dagster
        self.cohort = Cohort(root / "toy", PARTITIONS)
        for name in self.cohort.names:
            self.cohort.tell(name, f"sleep {chance.uniform(0.1, 1.5):.2f}")
        self.project = self.cohort.project
        self.log: list[str] = []
        self.said = (root / "said").open("w+")
        self.began = time.monotonic()
        self.runs = self.repairs = self.ghosts = 0
        self.run = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        self.runs += 1
        if self.through_dagster:
            quiet_dagster(self.project.root)
            words = command("-C", self.project.root, "run", "counted")
        else:
            words = [sys.executable, "-c", RUN, str(self.project.root), *self.cohort.names]
        # a session of its own: a kill takes `ct`, the process of Dagster below it, and nothing else
        return subprocess.Popen(
            words,
            env=environment(**{VARIABLE: "test"}),
            stdout=self.said,
            stderr=self.said,
            start_new_session=True,
        )

    def strike(self, what: str) -> None:
        """Kill something, and after a moment start it again."""
        self.log.append(f"{time.monotonic() - self.began:.1f} s: {what}, {len(self.cohort.begun())} begun")
        {
            "run": self._run,
            "controller": lambda: self._daemon("slurmctld", self.slurm.cluster.stop),
            "accounting": lambda: self._daemon("slurmdbd"),
            "node": self._node,
            "node's daemon": lambda: self._daemon("n1"),
            "head node": self._head,
        }[what]()

    def _run(self) -> None:
        self._kill_run()
        self._pause(1)
        self.run = self._start()

    def _daemon(self, piece: str, end: Callable[[str], None] | None = None) -> None:
        (end or self.slurm.cluster.kill)(piece)
        self._pause(4)
        self.slurm.cluster.start(piece)

    def _node(self) -> None:
        self.slurm.cluster.crash("n2")
        self._pause(4)
        self.slurm.cluster.start("n2")

    def _head(self) -> None:
        """The run and the controller at once; they come back in any order."""
        self._kill_run()
        self.slurm.cluster.kill("slurmctld")
        if self.chance.random() < 0.5:
            self.run = self._start()
            self._pause(3)
            self.slurm.cluster.start("slurmctld")
        else:
            self.slurm.cluster.start("slurmctld")
            self.run = self._start()

    def _kill_run(self) -> None:
        os.killpg(self.run.pid, signal.SIGKILL)
        self.run.wait()

    def _pause(self, most: float) -> None:
        time.sleep(self.chance.uniform(0, most))

    def goes_on(self, seconds: float) -> bool:
        """Whether the run still runs after so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.repairs += self.slurm.administer()
            if wait(lambda: self.run.poll() is not None, min(LOOK_S, until - time.monotonic())):
                return False
        return self.run.poll() is None

    def finish(self) -> None:
        """The run ends by itself, and well."""
        ended = not self.goes_on(PATIENCE_S)
        self.said.seek(0)
        said = f"{self.log}\n{self.said.read()[-4000:]}"
        assert ended, f"still running after {PATIENCE_S} s\n{self.slurm.command('squeue')}\n{said}"
        assert self.run.returncode == 0, said

    def forget_ghosts(self) -> None:
        """What Slurm still lists though nothing works on it: a killed controller started ended tasks again, in vain."""
        queued = ("squeue", "-h", "-r", "-o", "%i")
        if not wait(lambda: not self.slurm.command(*queued), 10):
            ghosts = self.slurm.command(*queued).split()
            self.ghosts += len(ghosts)
            self.slurm.calm()

    def stop(self) -> None:
        if self.run.poll() is None:
            self._kill_run()
        self.said.close()


@pytest.fixture
def drill(quiet_slurm: Slurm, tmp_path: Path) -> Iterator[Callable[[], Drill]]:
    """Backfills one after another, every other one through `ct run` and Dagster."""
    chance, numbers = random.Random(SEED), count(1)
    with ExitStack() as stack:

        def begin() -> Drill:
            number = next(numbers)
            (tmp_path / str(number)).mkdir()
            one = Drill(quiet_slurm, tmp_path / str(number), chance, through_dagster=number % 2 == 0)
            stack.callback(one.stop)
            return one

        yield begin


def victims(chance: random.Random) -> Iterator[str]:
    """Each kind as often as every other, in an order that differs."""
    kinds = ["run", "controller", "accounting", "node", "node's daemon", "head node"]
    while True:
        yield from chance.sample(kinds, len(kinds))


def test_whatever_is_killed_during_backfills_each_partition_is_made_once(
    drill: Callable[[], Drill], capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    next_victim, kills = victims(chance), Counter[str]()
    backfills: list[Drill] = []
    while kills.total() < KILLS:
        one = drill()
        backfills.append(one)
        for _ in range(A_BACKFILL):
            if kills.total() < KILLS and one.goes_on(chance.uniform(0, 6)):
                what = next(next_victim)
                one.strike(what)
                kills[what] += 1
        one.finish()
        made_once(one.project, one.cohort.names, one.log)
        nothing_lost_or_doubled(one)
        if one.through_dagster:
            dagster_knows(one)
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
    import dagster as dg

    with dg.DagsterInstance.from_config(str(one.project.root / "dagster_home")) as instance:
        known = instance.get_materialized_partitions(dg.AssetKey("counted"))
        assert known == set(one.cohort.names), one.log
        active = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
        assert instance.get_runs(dg.RunsFilter(statuses=active)) == [], one.log


def report(kills: Counter[str], backfills: list[Drill]) -> None:
    """The figures of the drill."""
    rows = [row for one in backfills for row in one.cohort.rows()]
    begun = sum(one.cohort.begun().total() for one in backfills)
    print(
        f"\n{kills.total()} kills ({', '.join(f'{n} {what}' for what, n in kills.items())}) in {len(backfills)} "
        f"backfills of {PARTITIONS} partitions: {sum(one.runs for one in backfills)} runs, "
        f"{len({row['batch'] for row in rows})} arrays, {len(rows)} jobs, {begun} calls begun, "
        f"{sum(one.repairs for one in backfills)} nodes and tasks released, "
        f"{sum(one.ghosts for one in backfills)} ghosts in the queue, "
        f"{len(backfills) * PARTITIONS} artifacts"
    )
    for one in backfills:
        print(f"  {'; '.join(one.log) or 'no kill'}")
