"""A fault drill: backfills on a real cluster while processes are killed at random moments; each call once, in the end.

CT_DRILL_KILLS says how many kills (3: one backfill by the daemon; the whole drill has 30), CT_DRILL_SEED which ones.
"""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import astuple, dataclass
from itertools import count
from pathlib import Path

import pytest

from ctcore.project import Project
from tests.helpers.cluster_runs import PROFILE, RETRIED, Cohort
from tests.helpers.drill_checks import (
    dagster_knows,
    done_once,
    executed_once,
    ghosts,
    made_once,
    nobody_works,
    nothing_lost_or_doubled,
    records_agree,
)
from tests.helpers.drivers import Alone, Daemon, Driver, Shell
from tests.helpers.kit import TOML
from tests.helpers.postgres import Server
from tests.helpers.slurm import Slurm, for_tests
from tests.helpers.strikes import Hit, hit, in_slurm, kill, managers, of_node, published, table, tools, workers
from tools.slurm.processes import wait

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("CT_DRILL_KILLS", "3"))
SEED = int(os.environ.get("CT_DRILL_SEED", "20"))
LIST = Path(os.environ["CT_DRILL_LIST"]) if "CT_DRILL_LIST" in os.environ else None
PARTITIONS = 100
A_CI = 3
A_BACKFILL = A_CI if KILLS <= A_CI else 5  # kills, at most
DRIVERS = (Alone, Daemon, Shell)
KINDS = (
    "run",
    "daemon",
    "controller",
    "accounting",
    "node",
    "node's daemon",
    "head node",
    "worker",
    "tool of a step",
    "step manager",
    "PostgreSQL",
)
NODE = "node n2"
KILL_CALLS = ("worker", NODE)
ONE_STEP = RETRIED.partition('@step(level="specimen"')[0]
OFTEN = TOML.replace("[run]", "[run]\nlook_every_s = 2\nretry_after_s = 2")
PATIENCE_S = 240.0
LOOK_S = 2.0  # how often the administrator looks
ONE_S = 3.0  # how long a job is looked for that has just begun
STILL_S = 12.0  # a node that has just started says for 10 s that its jobs may be about to begin


class Drill:
    """One backfill: who drives it, the cluster and the database under it, and what was done to them."""

    def __init__(
        self, slurm: Slurm, root: Path, chance: random.Random, how: type[Alone] | type[Daemon], server: Server | None
    ) -> None:
        self.slurm, self.chance, self.server = slurm, chance, server
        if how is Daemon:
            Daemon.prepare(root / "toy")
        self.cohort = Cohort(root / "toy", PARTITIONS, profile=PROFILE, steps=ONE_STEP, toml=OFTEN)
        for name in self.cohort.names:
            how_it_waits = "tool" if chance.random() < 1 / 3 else "sleep"
            self.cohort.tell(name, f"{how_it_waits} {chance.uniform(0.1, 1.5):.2f}")
        self.project = self.cohort.project
        self.log: list[str] = []
        self.hits: list[Hit] = []
        self.said = (root / "said").open("w+")
        self.began = time.monotonic()
        self._made = 0, self.began
        self.repairs = self.ghosts = self.unaccounted = self.fallen = self.felled = 0
        self.driver: Driver = how(self.cohort, self.said)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What can be killed here."""
        return tuple(kind for kind in KINDS if kind != "daemon" or kind in self.driver.kinds)[
            : None if self.server else -1
        ]

    def strike(self, what: str) -> bool:
        """Kill something, and after a moment start it again. False where it was not there any more, or nothing of this
        backfill was in Slurm then."""
        strikes: dict[str, Callable[[], Hit | None]] = {
            "run": self._run,
            "daemon": self._dagster,
            "controller": self._controller,
            "accounting": lambda: self._piece("slurmdbd"),
            "node": self._node,
            "node's daemon": lambda: self._piece("n1"),
            "head node": self._head,
            "worker": lambda: self._one("worker", workers),
            "tool of a step": lambda: self._one("tool of a step", tools),
            "step manager": lambda: self._one("step manager", managers),
            "PostgreSQL": self._postgres,
        }
        found = strikes[what]()
        said = "nothing to hit" if found is None else f"{found.victims}"
        self.log.append(f"{time.monotonic() - self.began:.1f} s: {what} ({said}), {len(self.cohort.begun())} begun")
        if found is None or not found.counts:
            return False
        self.hits.append(found)
        return True

    def _hit(self, what: str, victims: Iterable[int], end: Callable[[], object]) -> Hit | None:
        return hit(what, victims, self.slurm, self.project, end)

    def _run(self) -> Hit | None:
        victims = self.driver.run()
        found = self._hit("run", victims, lambda: kill(victims))
        if found is not None:
            self._pause(1)
            self.driver.begin()
        return found

    def _dagster(self) -> Hit | None:
        victims = self.driver.daemon()
        found = self._hit("daemon", victims, lambda: kill(victims))
        if found is not None:
            self._pause(3)
            self.driver.begin()
        return found

    def _controller(self) -> Hit | None:
        stops = self.chance.random() < 0.5
        end = self.slurm.cluster.stop if stops else self.slurm.cluster.kill
        return self._piece("slurmctld", end, "controller, stopped" if stops else "controller, killed")

    def _piece(self, piece: str, end: Callable[[str], None] | None = None, what: str = "") -> Hit | None:
        pid = self.slurm.cluster.state()[piece]
        found = self._hit(what or piece, [pid] if pid else [], lambda: (end or self.slurm.cluster.kill)(piece))
        if found is not None:
            self._pause(4)
            self.slurm.start(piece)
        return found

    def _node(self) -> Hit | None:
        found = self._hit(NODE, of_node(self.slurm, "n2"), lambda: self.slurm.cluster.crash("n2"))
        if found is not None:
            self._pause(4)
            self.slurm.start("n2")
        return found

    def _one(self, what: str, victims: Callable[[Project], list[int]]) -> Hit | None:
        """One of them alone."""
        wait(lambda: bool(victims(self.project)) or self.driver.over(), ONE_S)
        found = sorted(victims(self.project))
        chosen = [self.chance.choice(found)] if found else []
        return self._hit(what, chosen, lambda: kill(chosen))

    def _postgres(self) -> Hit | None:
        """What was speaking with it may end too: then it is begun again."""
        assert self.server is not None
        server, killed = self.server, self.chance.random() < 0.5
        what = f"PostgreSQL, {'killed' if killed else 'stopped at once'}"
        found = self._hit(what, server.pids(), server.crash if killed else server.stop_at_once)
        if found is not None:
            self.felled += 1
            self._pause(4)
            server.start_again()
        return found

    def _head(self) -> Hit | None:
        """All of ct and the controller at once; they come back in any order."""
        controller = self.slurm.cluster.state()["slurmctld"]

        def end() -> None:
            self.driver.kill()
            self.slurm.cluster.kill("slurmctld")

        found = self._hit("head node", [*self.driver.all(), *([controller] if controller else [])], end)
        if found is None:
            return None
        if self.chance.random() < 0.5:
            self.driver.begin()
            self._pause(3)
            self.slurm.start("slurmctld")
        else:
            self.slurm.start("slurmctld")
            self.driver.begin()
        return found

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
            self._administer()
            if wait(lambda: reached() or self.over(), LOOK_S) and not reached():
                return False
        return not self.over()

    def _administer(self) -> None:
        """Also where Slurm holds jobs for running that nothing works on: it asks its nodes only every 100 s."""
        self.repairs += self.slurm.administer()
        made, now = len(published(self.project)), time.monotonic()
        if made != self._made[0]:
            self._made = made, now
        elif self.hits and now - self._made[1] > STILL_S:
            self._made = made, now
            with self.slurm.administered():
                self.repairs += self.slurm.register_anew()

    def over(self) -> bool:
        """Whoever ends because the database was taken away is begun again, as by whoever watches over it."""
        if self.felled and self.driver.fell():
            self.fallen += 1
            self.log.append(f"{time.monotonic() - self.began:.1f} s: begun again after the database was away")
            self.driver.begin()
            return False
        return self.driver.over()

    def finish(self) -> None:
        """It ends by itself, and well."""
        ended = not self.goes_on(PATIENCE_S)
        self.said.seek(0)
        said = f"{self.log}\n{self.said.read()[-4000:]}"
        assert ended, (
            f"still going on after {PATIENCE_S} s: {self.driver.trouble()}\n{self.slurm.command('squeue')}\n{said}"
        )
        assert not (trouble := self.driver.trouble()), f"{trouble}\n{said}"
        self.log.append(f"{time.monotonic() - self.began:.1f} s: ended")

    def figures(self) -> str:
        took, where = time.monotonic() - self.began, "PostgreSQL" if self.server else "SQLite"
        return f"{type(self.driver).__name__.lower()} on {where}, {took:.0f} s: {'; '.join(self.log) or 'no kill'}"

    def totals(self) -> Counter[str]:
        """Figures that add up."""
        rows = self.cohort.rows()
        return Counter(
            {
                "times begun": self.driver.begun,
                "of these because the database was away": self.fallen,
                "arrays": len({row["batch"] for row in rows}),
                "jobs": len(rows),
                "calls begun": self.cohort.begun().total(),
                "calls done": self.cohort.done().total(),
                "nodes and tasks released": self.repairs,
                "ghosts in the queue": self.ghosts,
                "completed, unknown to accounting": self.unaccounted,
                "artifacts": len(self.cohort.names),
            }
        )

    def stop(self) -> None:
        self.driver.kill()
        self.said.close()


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """A cluster of its own: a killed controller gives numbers twice, and others look for theirs in accounting."""
    yield from for_tests()


@pytest.fixture
def drills(
    quiet_slurm: Slurm, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Iterator[Drill]]:
    """Backfills one after another, each driven by another one; the catalog is on SQLite and on PostgreSQL in turn."""

    def begun() -> Generator[Drill, None, None]:
        chance = random.Random(SEED)
        for number in count(SEED % len(DRIVERS) if KILLS > A_CI else 1):
            with ExitStack() as stack:
                server = request.getfixturevalue("postgres") if number % 2 else None
                monkeypatch.delenv("CT_POSTGRES_URL", raising=False)
                if server is not None:
                    monkeypatch.setenv("CT_POSTGRES_URL", stack.enter_context(server.fresh()))
                root = tmp_path / str(number)
                root.mkdir()
                one = Drill(quiet_slurm, root, chance, DRIVERS[number % len(DRIVERS)], server)
                stack.callback(one.stop)
                yield one

    with closing(begun()) as all_of_them:
        yield all_of_them


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


def test_each_partition_is_made_once_whatever_is_killed(
    drills: Iterator[Drill], capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    victims, hits, totals = Victims(chance), list[Hit](), Counter[str]()
    while len(hits) < KILLS:
        one = next(drills)
        for moment in moments(chance, one.driver.apart_s):
            while len(hits) + len(one.hits) < KILLS and one.comes_to(moment):
                what = victims.next(one.kinds)
                if one.strike(what):
                    break
                victims.waiting.append(what)
        one.finish()
        one.driver.kill()
        checked(one)
        hits += one.hits
        totals += one.totals()
        with capsys.disabled():
            print(f"\n{one.figures()}\n{table(one.hits)}", end="", flush=True)
        keep(one)
    with capsys.disabled():
        report(hits, totals)


def checked(one: Drill) -> None:
    """All that has to hold now, however it went."""
    cohort, slurm, log = one.cohort, one.slurm, one.log
    nobody_works(one.project, log)
    one.ghosts = ghosts(slurm)
    made_once(one.project, cohort.names, log)
    assert in_slurm(slurm, one.project).all == frozenset(), log
    nothing_lost_or_doubled(slurm, cohort, log)
    one.unaccounted = executed_once(slurm, cohort, log)
    done_once(cohort, sum(one.alive for one in one.hits if one.what in KILL_CALLS), log)
    records_agree(one.project, log)
    if type(one.driver) is not Alone:
        dagster_knows(one.project, cohort.names, log)


def keep(one: Drill) -> None:
    """In the list that CT_DRILL_LIST names: rounds that went well stay known, whatever the next ones find."""
    if LIST is not None:
        where = [SEED, type(one.driver).__name__, "PostgreSQL" if one.server else "SQLite"]
        with LIST.open("a") as file:
            file.writelines(json.dumps([*where, *astuple(round)]) + "\n" for round in one.hits)


def report(hits: list[Hit], totals: Counter[str]) -> None:
    """The figures of the drill."""
    kinds = Counter(one.what for one in hits)
    print(f"\n{table(hits)}\n{len(hits)} rounds: {', '.join(f'{n} {what}' for what, n in kinds.items())}")
    print(", ".join(f"{number} {what}" for what, number in totals.items()))
