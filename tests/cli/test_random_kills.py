"""kill -9 at random moments, in one project that lives on: nothing that was acknowledged is lost, nothing is wrong, and
nobody is named.

CT_KILLS says how many kills there are on each database (6; the long trial has 200, with `ct run` as it is), and
CT_KILLS_SEED which ones. After each, and again after the same command has ended,
all of `tests/helpers/lived.py` has to hold.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import select

import ctcore.projects.dagster_home
from ctcore.catalog.event_log import Journal
from ctcore.catalog.tables import event, lease
from ctcore.cli import main
from ctcore.inputs.current import forget
from ctcore.integrity.look import look_around
from ctcore.projects.leases import living_processes
from ctcore.util.processes import children_of
from tests.governance.test_gate_everywhere import readable
from tests.helpers.exact import remove
from tests.helpers.killing import Moments, forked
from tests.helpers.kit import again, make_all
from tests.helpers.lived import barred, consistent, let_go, lived, named, secrets, settled, stale
from tests.helpers.lives import Act, Life
from tests.helpers.postgres import Server
from tests.helpers.shell import ROOT, ct, environment, quiet_dagster
from tools.slurm.processes import wait

KILLS = int(os.environ.get("CT_KILLS", "6"))
SEED = int(os.environ.get("CT_KILLS_SEED", "1"))
CHAPTER = 10  # kills, after which all begins anew
WHOLE = KILLS > CHAPTER  # every fourth chapter has Dagster, and `ct run` as it is
AGAIN = 0.25  # how often what repairs is killed too
PATIENCE_S = 300  # whoever takes longer hangs
CHAPTERS = [(SEED * 1000 + at // CHAPTER, min(CHAPTER, KILLS - at)) for at in range(0, KILLS, CHAPTER)]
MARK = "CT_TEST_KILLS"  # in the environment of all that a command starts
NAMING = {"register", "record", "purge", "consent", "qc"}  # they are about people, and name them


@dataclass
class Dying(Life):
    """Its commands are killed, and here is what has to hold then. `known`: the events that were committed before;
    `gone`: who may not be named."""

    has_dagster: bool = False
    moments: dict[str, list[str]] = field(default_factory=dict)
    known: list[tuple[int, str]] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    last: str = ""
    slowest: float = 0.0

    def called(self, act: Act, at: int | None = None) -> int:
        """Do it in a process of its own, to be killed before moment `at`: its exit code, or minus the signal."""

        def work() -> int:
            forget()
            signal.alarm(PATIENCE_S)
            os.environ[MARK] = str(self.root)
            if not self.has_dagster:
                ctcore.projects.dagster_home.launch = lambda *_: 0
            Moments(self.root.parent / "moments", at).watch()
            if act.name == "run":
                project = self.project
                print(look_around(project, most=None).lines())
                print(make_all(again(project), inline=act.is_inline))
                return 0
            sys.argv = ["ct", "-C", str(self.root), *act.words]
            try:
                main()
            except SystemExit as ended:
                return ended.code if isinstance(ended.code, int) else 0
            return 0

        let_go()
        began, self.last = time.monotonic(), act.name
        ended = forked(work, self.root.parent / "log")
        took = time.monotonic() - began
        self.slowest = max(self.slowest, took)
        self.said.append(f"{' '.join(act.words)} → {ended}" + (f" at {at}" if ended == -9 else "") + f" ({took:.1f} s)")
        if ended != -9:
            self.moments[act.name] = (self.root.parent / "moments").read_text().splitlines()
        return ended

    def launched(self, act: Act, whom: str) -> int:
        """`ct run` with Dagster, of which something is killed after a random time: the one in front, the one that
        Dagster runs in, a worker, or all."""
        let_go()
        command = [sys.executable, "-m", "ctcore.cli", "-C", str(self.root), *act.words]
        env = environment(**{MARK: str(self.root)}, **_database())
        seconds, self.last, began = self.draw.uniform(0.2, 8.0), act.name, time.monotonic()
        with (self.root.parent / "log").open("w") as log:
            front = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
            with suppress(subprocess.TimeoutExpired):
                front.wait(PATIENCE_S if whom == "nobody" else seconds)
            if whom != "nobody":
                self._kill(front.pid, whom)
            ended = front.wait(PATIENCE_S)
        took = time.monotonic() - began
        self.slowest = max(self.slowest, took)
        self.said.append(f"ct run → {ended} ({took:.1f} s), {whom} after {seconds:.1f} s")
        return ended

    def _kill(self, front: int, whom: str) -> None:
        mine = _marked(self.root)
        launch = children_of(front)
        workers = [pid for pid in mine if b"ctcore.execution.fork_server" in _command(pid)][::-1]  # the latest first
        chosen = {"front": [front], "launch": launch, "worker": workers[:1], "all": mine}[whom]
        for pid in chosen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def moment(self, name: str) -> int:
        """Any of them, or one beside a commit or a rename."""
        names = self.moments.get(name) or [""] * 40
        sharp = [at for at, one in enumerate(names) if one in ("commit", "os.rename")]
        if sharp and self.draw.random() < 0.5:
            return max(0, self.draw.choice(sharp) + self.draw.choice((0, 1)))
        return self.draw.randrange(len(names))

    def killed(self, act: Act) -> bool:
        """Do it, and have it killed. Whether it came to that."""
        if act.name == "run" and self.has_dagster:
            self.launched(act, self.draw.choice(("front", "launch", "worker", "all", "all")))
            is_killed = True
        else:
            is_killed = self.called(act, self.moment(act.name)) == -9
        if self.draw.random() < 0.5:  # else they go on, and end what they are at
            for pid in _marked(self.root):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert wait(lambda: _marked(self.root) == [], PATIENCE_S), "something goes on for ever"
        assert act.breaks or self._nobody_holds_anything(), "a lease outlives its holder"
        return is_killed

    def _nobody_holds_anything(self) -> bool:
        """Nobody waits for a lease: those that are left are of the dead."""
        project = self.project
        with project.catalog.read() as connection:
            rows = connection.execute(select(lease.c.owner, lease.c.job)).all()
        project.catalog.engine.dispose()
        return living_processes(project, [name for row in rows for name in row]) == set()

    def whole(self, act: Act) -> int:
        """Do it to its end."""
        return self.launched(act, "nobody") if act.name == "run" and self.has_dagster else self.called(act)

    def look(self, act: Act, is_over: bool = False) -> None:
        self.names_nobody(act)
        self.has_lost_nothing()
        if is_over:
            self._over(act)
        elif not act.breaks:
            consistent(self.root, self.harmed)

    def _over(self, act: Act) -> None:
        assert act.stands(), act
        rows = self.events()
        new = Counter(kind for _, _, kind in rows[len(self.known) :])
        assert all(new[kind] <= 1 for kind in act.once), (act, new)
        if act.name == "recover":
            assert [(seq, digest) for seq, digest, _ in rows][: len(self.known)] == self.known
        ct("-C", self.root, "verify")  # whatever became of files is known from here on
        settled(self.root, consistent(self.root, self.harmed), self.harmed)

    def events(self) -> list[tuple[int, str, str]]:
        """Number, digest and kind of each event of the catalog, as it lies there."""
        catalog = self.project.closed_catalog()
        try:
            if catalog.version() is None:
                return []
            with catalog.engine.connect() as connection:
                rows = connection.execute(select(event.c.seq, event.c.digest, event.c.kind).order_by(event.c.seq))
                return [(seq, digest, kind) for seq, digest, kind in rows]
        finally:
            catalog.engine.dispose()

    def has_lost_nothing(self) -> None:
        """What was committed before is in the catalog or in the journal, which is never ahead."""
        rows = [(seq, digest) for seq, digest, _ in self.events()]
        path = self.root / "provenance.jsonl"
        lines = [(row["seq"], row["digest"]) for _, _, row in Journal(path).lines() if row] if path.exists() else []
        assert set(self.known) <= {*rows, *lines}
        if rows and rows[: len(self.known)] == self.known:
            assert lines == rows[: len(lines)]

    def names_nobody(self, act: Act) -> None:
        """Neither what it said nor what it wrote."""
        gone = barred(self.root) if not act.breaks else self.gone
        said = (self.root.parent / "log").read_text(errors="replace")
        if act.name == "register":
            return
        assert (secrets if act.name in NAMING else named)(_without(said, act.words), gone) == set(), said
        for path in self.written():
            assert named(path.read_bytes().decode(errors="replace"), gone) == set(), path
            with suppress(Exception):  # half of one
                assert named(readable(path), gone) == set(), path


def _without(said: str, words: Sequence[str]) -> str:
    """Not counting what it was given."""
    for one in words:
        said = said.replace(one, "").replace(one.partition("=")[2] or one, "")
    return said


def _marked(root: Path) -> list[int]:
    """The processes that a command of this project has started, and those that these have."""
    mine, found = f"{MARK}={root}".encode(), []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mine in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _database() -> dict[str, str]:
    return {name: os.environ[name] for name in ("CT_POSTGRES_URL",) if name in os.environ}


def killed_once(life: Dying) -> bool:
    """One command, killed, and done again to its end. Whether it was killed at all."""
    act = life.act()
    life.known, life.gone = [(seq, digest) for seq, digest, _ in life.events()], barred(life.root)
    act.before()
    life.out.mkdir()
    is_killed = life.killed(act)
    life.look(act)
    if is_killed and life.draw.random() < AGAIN:
        life.killed(act)
        life.look(act)
    ended = life.whole(act)
    log = (life.root.parent / "log").read_text(errors="replace")
    assert ended in (*act.codes, *((2,) if not is_killed else ())), (ended, log)
    if act.name == "run" and stale(life.root):  # a worker was killed; its call has failed
        life.whole(act)
    life.look(act, is_over=True)
    shutil.rmtree(life.out)
    return is_killed


def chapter(base: Path, place: Path, seed: int, kills: int) -> None:
    """So many kills in a copy of the project."""
    shutil.copytree(base, place)
    rows = json.loads((place / "rows.json").read_text())
    life = Dying(place / "toy", random.Random(seed), rows, has_dagster=WHOLE and seed % 4 == 1)
    if life.has_dagster:
        quiet_dagster(life.root)
        shutil.copy(ROOT / "definitions.py", life.root)
    done = Counter[str]()
    try:
        while done.total() < kills:
            if killed_once(life):
                done[life.last] += 1
    except BaseException:
        log = (place / "log").read_text(errors="replace")[-3000:] if (place / "log").exists() else ""
        print(*life.said, log, sep="\n  ")
        raise
    finally:
        print(f"seed {seed}: {dict(done)}, the slowest command {life.slowest:.1f} s")
    remove(place)


def built(folder: Path) -> Path:
    rows = lived(folder / "toy")
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder.rename(folder.with_name(f"{folder.name} kept"))  # a database has one folder for an ID


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def base_on_postgresql(tmp_path_factory: pytest.TempPathFactory, postgres: Server) -> Iterator[tuple[Path, str]]:
    with postgres.fresh() as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CT_POSTGRES_URL", url)
        folder = built(tmp_path_factory.mktemp("postgresql"))
        patch.undo()
        yield folder, url


@pytest.mark.parametrize(("seed", "kills"), CHAPTERS)
def test_random_kills_lose_nothing_and_name_nobody(base: Path, tmp_path: Path, seed: int, kills: int) -> None:
    chapter(base, tmp_path / "at", seed, kills)


@pytest.mark.parametrize(("seed", "kills"), CHAPTERS)
def test_nor_on_postgresql(
    base_on_postgresql: tuple[Path, str],
    postgres: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    kills: int,
) -> None:
    folder, like = base_on_postgresql
    with postgres.fresh(like) as url:
        monkeypatch.setenv("CT_POSTGRES_URL", url)
        chapter(folder, tmp_path / "at", seed + 500, kills)
