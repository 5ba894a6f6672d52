"""A real Slurm cluster for tests: private, in a temporary folder, gone when this process is.

`python -m tools.slurm hold` watches over it. It waits for the end of a pipe that only this process holds open, so that
daemons, jobs and the folder go also where this process is killed.
"""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from getpass import getuser
from pathlib import Path

import pytest

from tools.slurm.cluster import Cluster, NoSlurm, missing
from tools.slurm.processes import wait
from tools.slurm.settings import Shape

ROOT = Path(__file__).parents[2]
SHAPE = Shape(max_array=101)  # so that 102 jobs have to be split
SECONDS = 60


@dataclass(frozen=True)
class Run:
    """One line of accounting: a requeued job has several."""

    job: str
    state: str
    exit_code: str
    node: str
    start: str
    end: str


class Slurm:
    """A running cluster, and what tests ask of it."""

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster(folder)
        self.environment = self.cluster.environment

    def sbatch(self, command: str, *options: str) -> str:
        """Submit a shell command; its output goes to `output(job)`. Gives the job's number."""
        out = f"--output={self.cluster.folder}/%j.out"
        return self.command("sbatch", "--parsable", out, *options, f"--wrap={command}")

    def output(self, job: str) -> str:
        """What a job wrote so far."""
        path = self.cluster.folder / f"{job}.out"
        return path.read_text() if path.exists() else ""

    def command(self, *words: str) -> str:
        """What a Slurm command says; it has to succeed."""
        said = self.cluster.ask(*words)
        assert said.returncode == 0, said.stderr
        return said.stdout.strip()

    def queue(self, job: str) -> dict[str, str]:
        """State of each task of a job, or of the job alone: also of those that ended within the last minute."""
        lines = self.command("squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%i %T").splitlines()
        return {task: state for task, _, state in (line.partition(" ") for line in lines)}

    def accounting(self, job: str) -> list[Run]:
        """What accounting knows of a job, oldest first."""
        columns = "--format=JobID,State,ExitCode,NodeList,Start,End"
        lines = self.command("sacct", "--duplicates", "-X", "-n", "-P", "-j", job, columns).splitlines()
        return [Run(*line.split("|")) for line in lines]

    def wait_for(self, job: str, *states: str, seconds: float = SECONDS) -> None:
        """Until every task is in one of the states."""
        reached = wait(lambda: bool(found := self.queue(job)) and set(found.values()) <= set(states), seconds)
        assert reached, f"{job} is {self.queue(job)}, not {states}"

    def wait_for_accounting(self, job: str, *states: str, seconds: float = SECONDS) -> list[Run]:
        """Until the states of its lines are these, in any order, and everything but a waiting job has an end."""

        def settled() -> bool:
            found = self.accounting(job)
            ended = all(run.end != "Unknown" for run in found if run.state not in ("PENDING", "RUNNING"))
            return ended and sorted(run.state for run in found) == sorted(states)

        assert wait(settled, seconds), f"{job} in accounting: {self.accounting(job)}, not {states}"
        return self.accounting(job)

    def administer(self) -> int:
        """Give back nodes that Slurm drained and tasks that it holds, and count them.

        A controller that was killed has forgotten what it did last. It may start a task a second time, which the
        node refuses; then Slurm drains the node and holds the task until somebody says that all is well.
        """
        nodes = self.cluster.ask("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T").stdout.splitlines()
        held = self.cluster.ask("squeue", "-h", "-r", "-t", "PD", "-o", "%i %r").stdout.splitlines()
        drained = [name for name, _, state in (line.partition(" ") for line in nodes) if state.startswith("drain")]
        tasks = [task for task, _, reason in (line.partition(" ") for line in held) if reason.endswith("held")]
        for name in drained:
            self.cluster.ask("scontrol", "update", f"nodename={name}", "state=resume")
        for task in tasks:
            self.cluster.ask("scontrol", "release", task)
        return len(drained) + len(tasks)

    @contextmanager
    def administered(self) -> Iterator[None]:
        """Somebody looks after it meanwhile, also where a piece is being started."""
        done = threading.Event()

        def look() -> None:
            while not done.wait(1):
                self.administer()

        watch = threading.Thread(target=look)
        watch.start()
        try:
            yield
        finally:
            done.set()
            watch.join()

    def start(self, piece: str) -> None:
        """Start one piece again. A node may be drained in that moment."""
        with self.administered():
            self.cluster.start(piece)

    def calm(self) -> None:
        """Whatever a test did: every piece runs, and nothing is queued."""
        if self.cluster.state()["slurmctld"]:
            self.cluster.ask("scancel", "--user", getuser())
        with self.administered():
            try:
                self.cluster.up()
            except NoSlurm:
                self.register_anew()
            self.command("scancel", "--user", getuser())
            if not wait(lambda: not self.command("squeue", "-h"), SECONDS / 4):
                self.register_anew()
            assert wait(lambda: not self.command("squeue", "-h"), SECONDS), self.command("squeue")

    def register_anew(self) -> int:
        """A node that starts says which jobs it has: the controller learns that the others are over. Gives how many."""
        nodes = [name for name in self.cluster.state() if name.startswith("n")]
        for name in nodes:
            self.cluster.kill(name)
            self.cluster.start(name)
        return len(nodes)


def for_tests() -> Iterator[Slurm]:
    """A cluster for the tests of a fixture; where there can be none, they skip, and in CI they fail."""
    if why := missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"Slurm: {why}")
    with running() as started:
        yield started


@contextmanager
def running(shape: Shape = SHAPE) -> Iterator[Slurm]:
    """Start a cluster, and remove it whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="ct-slurm-"))
    words = [f"--{field.name.replace('_', '-')}={getattr(shape, field.name)}" for field in fields(shape)]
    command = [sys.executable, "-m", "tools.slurm", "hold", str(folder), *words]
    pipe = subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as keeper:
        assert keeper.stdout is not None and keeper.stdin is not None and keeper.stderr is not None
        if not keeper.stdout.readline():
            raise RuntimeError(keeper.stderr.read())
        try:
            yield Slurm(folder)
        finally:
            keeper.stdin.close()
            keeper.wait(SECONDS)
