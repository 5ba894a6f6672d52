"""Runs on a cluster, for tests: a project whose steps do as their patient's sheet says, run here or as a process."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select

from ctcore.catalog.tables import lease, slurm_batch, slurm_job
from ctcore.execution.materialize import Outcome, StepRun
from ctcore.execution.slurm.cancel import Stop
from ctcore.execution.slurm.runner import SlurmRunner
from ctcore.project import Project
from tests.helpers.kit import STEPS, TOML, again, assay, make_project
from tests.helpers.shell import environment

PROFILE = """
[slurm.test]
memory_gb = 0.1
time = 5
poll = 1
grace = 2
tries = 3
max_memory_gb = 0.6
"""
QUICK = PROFILE.replace("poll = 1", "poll = 0.3").replace("grace = 2", "grace = 0.5")
OBEY = """
    import os, signal, subprocess, time
    from pathlib import Path
    calls = Path(call.params.calls)
    with open(calls, "a") as file:
        file.write(f"{call.entity} {os.environ.get('SLURM_JOB_ID')} {call.cpus}\\n")
    print("begun", call.entity, flush=True)
    todo = Path(f"{calls}.{call.entity}")
    told = todo.read_text().strip() if todo.exists() else ""
    while told.endswith("later") and not Path(f"{calls}.later").exists():
        time.sleep(0.05)
    if told.startswith("sleep"):
        time.sleep(float(told.split()[1]))
    elif told.startswith("tool"):
        subprocess.run(["sleep", told.split()[1]], check=True)
    elif told.startswith("wait"):
        while not Path(f"{calls}.go").exists():
            time.sleep(0.05)
    elif told.startswith("eat"):
        eaten = b"x" * (int(told.split()[1]) << 20)
        time.sleep(3)
    elif told.startswith("kill"):
        os.kill(os.getpid(), int([*told.split(), 9][1]))
    elif told.startswith("exit"):
        os._exit(int(told.split()[1]))
    elif told.startswith("luck"):
        times = int(told.split()[1])
        todo.write_text(f"luck {times - 1}")
        if times:
            raise ValueError(f"no luck yet with {call.entity}")
    elif told.startswith("fail"):
        print("the last words", flush=True)
        raise ValueError(f"no luck with {call.entity}")
    elif told.startswith("once"):
        todo.unlink()
        time.sleep(300)
    with open(f"{calls}.done" if calls.is_file() else calls, "a") as file:
        file.write(f"{call.entity} {os.environ.get('SLURM_JOB_ID')}\\n")
    n = len("""
OBEDIENT = STEPS.replace("\n    n = len(", OBEY, 1).replace(
    "    factor: int = 1\n", '    factor: int = 1\n    calls: str = "/dev/null"\n'
)
RETRIED = OBEDIENT.replace("import Call, step", "import Call, Resources, step").replace(
    "params=Counting, ", "params=Counting, resources=Resources(retries=2), ", 1
)
RUN = """
import sys
from pathlib import Path
from tests.helpers.cluster_runs import outcomes
from ctcore.util import progress
from ctcore.project import Project
with progress.reading(lambda text: print(text, file=sys.stderr, flush=True)):
    for one in outcomes(Project.find(Path(sys.argv[1])), sys.argv[2:]):
        print(one.node[1], one.state, one.why, flush=True)
"""


class Cohort:
    """A project of `n` assays, each with a step that does what it is told, and a list of the calls that began."""

    def __init__(self, root: Path, n: int, profile: str = PROFILE, steps: str = OBEDIENT, toml: str = TOML) -> None:
        self.calls = root.parent / "calls"
        self.names = [f"A{number:03}" for number in range(n)]
        text = f'{toml}\n[params.counted]\ncalls = "{self.calls}"\n{profile}'
        rows = [assay("P1", "S1", name, sex="F") for name in self.names]
        self.project = make_project(root, rows, steps=steps, toml=text)

    def tell(self, name: str, what: str) -> None:
        """`sleep S`, `tool S` (a program that sleeps), `wait` (for `go`), `eat MIB`, `kill [SIGNAL]`, `exit N`, `fail`,
        `luck N` (after N failures), `once` (hang once).

        Each also `later`: not before `later` is called.
        """
        Path(f"{self.calls}.{name}").write_text(what)

    def go(self) -> None:
        Path(f"{self.calls}.go").touch()

    def later(self) -> None:
        Path(f"{self.calls}.later").touch()

    def begun(self) -> Counter[str]:
        """How often each assay's call began."""
        return self._counted(self.calls)

    def done(self) -> Counter[str]:
        """How often it did all that it was told, and had only to publish."""
        return self._counted(Path(f"{self.calls}.done"))

    def _counted(self, place: Path) -> Counter[str]:
        lines = place.read_text().splitlines() if place.exists() else []
        return Counter(line.split()[0] for line in lines)

    def make(self, *names: str, stop: Stop | None = None) -> dict[str, Outcome]:
        """In this process; as a new one would, with the project opened anew."""
        return {one.node[1]: one for one in outcomes(again(self.project), names or self.names, stop)}

    def process(self, *names: str, path: Path | None = None) -> "subprocess.Popen[str]":
        """The same as a process of its own; `path` has programs that go before the real ones."""
        found = f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", RUN, str(self.project.root), *(names or self.names)]
        return subprocess.Popen(command, env=environment(PATH=found), stdout=pipe, stderr=pipe, text=True)

    def rows(self) -> list[dict[str, object]]:
        """Every job in the catalog with its batch, oldest first."""
        with again(self.project).catalog.read() as connection:
            joined = select(slurm_job, slurm_batch).join(slurm_batch, slurm_batch.c.id == slurm_job.c.batch)
            rows = connection.execute(joined.order_by(slurm_batch.c.intended_at, slurm_job.c.idx))
            return [dict(row) for row in rows.mappings()]

    def settled(self) -> None:
        """Nobody holds a key, every job is judged, and nothing is left that nobody will read."""
        assert [row for row in self.rows() if row["ended_at"] is None] == []
        with again(self.project).catalog.read() as connection:
            assert connection.execute(select(lease)).all() == []
        assert list((self.project.work / "results").glob("*")) == []
        assert list((self.project.store.root / ".staging").glob("[!.]*")) == []


def outcomes(project: Project, names: Sequence[str], stop: Stop | None = None) -> list[Outcome]:
    """Make `counted` of these assays on the profile `test`."""
    runner = SlurmRunner(project, project.settings.slurm["test"], stop=stop)
    return list(StepRun(project, project.steps["counted"], names, runner=runner).outcomes())
