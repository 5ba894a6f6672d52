"""Who drives a backfill on a cluster, for drills: a process of the library alone, `ct run`, or Dagster's daemon."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol
from unittest.mock import patch

from sqlalchemy import select

from ctcore.catalog.tables import artifact, lease, slurm_job
from ctcore.cohorts import registry
from ctcore.execution.runners import VARIABLE
from ctcore.project import Project
from ctcore.projects.dagster_home import environment as dagster_environment
from tests.helpers.cluster_runs import RUN, Cohort
from tests.helpers.kit import again
from tests.helpers.shell import ROOT, command, environment, quiet_dagster, shell
from tools.slurm.processes import wait

LOOK_S = 0.5
_MONITORING = "run_monitoring:\n  enabled: true\n"


class Driver(Protocol):
    """One backfill; who belongs to it is told by numbers of processes. `begin` begins it, or what was killed of it."""

    kinds: tuple[str, ...]
    apart_s: float
    """How long after the one before a kill comes, at most: they are to hit it at any stage."""
    begun: int
    project: Project

    def begin(self) -> None: ...

    def run(self) -> list[int]:
        """The processes that wait for the jobs."""
        ...

    def daemon(self) -> list[int]: ...

    def all(self) -> list[int]: ...

    def kill(self) -> None:
        """All of it, at once."""
        ...

    def fell(self) -> bool:
        """Whether it ended by itself, and not well: whoever watches over it begins it again."""
        ...

    def over(self) -> bool: ...

    def trouble(self) -> str:
        """Why it did not end well; empty where it did."""
        ...


def database() -> dict[str, str]:
    """For a process that keeps its catalog where this one does."""
    return {name: os.environ[name] for name in ("CT_POSTGRES_URL",) if name in os.environ}


def processes(project: Project) -> list[int]:
    """Those of Dagster that work for this project on this machine; its jobs are on nodes."""
    mine = f"CT_PROJECT={project.root}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if mine in words and not any(word.startswith(b"SLURM_JOB_ID=") for word in words):
                found.append(int(path.parent.name))
    return found


def kill_all(project: Project) -> None:
    """Also those that are begun in this moment."""
    while pids := processes(project):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


class Alone:
    """A process of the library, without Dagster."""

    kinds: tuple[str, ...] = ("run",)
    apart_s = 6.0

    def __init__(self, cohort: Cohort, said: IO[str]) -> None:
        self.cohort, self.project, self.said, self.begun = cohort, cohort.project, said, 0
        self.begin()

    def words(self) -> list[str]:
        return [sys.executable, "-c", RUN, str(self.project.root), *self.cohort.names]

    def begin(self) -> None:
        self.begun += 1
        self.process = subprocess.Popen(
            self.words(),
            env=environment(**{VARIABLE: "test"}, **database()),
            stdout=self.said,
            stderr=self.said,
            start_new_session=True,
        )

    def run(self) -> list[int]:
        return self.all()

    def daemon(self) -> list[int]:
        return []

    def all(self) -> list[int]:
        return sorted({self.process.pid, *processes(self.project)})

    def kill(self) -> None:
        self.process.kill()
        kill_all(self.project)
        self.process.wait()

    def fell(self) -> bool:
        return self.process.poll() not in (None, 0)

    def over(self) -> bool:
        return self.process.poll() is not None

    def trouble(self) -> str:
        return f"it ended with {self.process.returncode}" if self.process.returncode else ""


class Shell(Alone):
    """`ct run`: a run of Dagster in a process below it."""

    apart_s = 9.0

    def words(self) -> list[str]:
        quiet_dagster(self.project.root)
        return command("-C", self.project.root, "run", "counted")


class Daemon:
    """Dagster's daemon: the project's sensors ask for the run, and ask again where one died."""

    kinds: tuple[str, ...] = ("run", "daemon")
    apart_s = 18.0

    def __init__(self, cohort: Cohort, said: IO[str]) -> None:
        self.cohort, self.project, self.said, self.begun = cohort, cohort.project, said, 0
        self.processes: list[subprocess.Popen[bytes]] = []
        self._looked, self._over = 0.0, False
        for level in ("patient", "specimen", "assay", "reference"):  # no runs but those of the backfill
            registry.mark_reported(self.project, registry.entries(self.project, level))
        self.begin()

    @staticmethod
    def prepare(root: Path) -> None:
        """A project that Dagster can load, before the cohort is put into it."""
        assert shell("init", root, env=database()).code == 0
        settings = quiet_dagster(root) / "dagster_home" / "dagster.yaml"
        text = settings.read_text()
        assert _MONITORING in text
        settings.write_text(text.replace(_MONITORING, f"{_MONITORING}  start_timeout_seconds: 30\n"))

    def begin(self) -> None:
        if self.processes and self.processes[-1].poll() is None:
            return
        self.begun += 1
        self.processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "dagster._daemon", "run", "-w", "workspace.yaml"],
                cwd=self.project.root,
                env={**dagster_environment(self.project), "PYTHONPATH": str(ROOT), VARIABLE: "test"},
                stdout=self.said,
                stderr=self.said,
                start_new_session=True,
            )
        )

    def run(self) -> list[int]:
        """Wherever the daemon had it started."""
        wait(lambda: bool(self._owners()) or self.over(), 30)
        return sorted(self._owners())

    def daemon(self) -> list[int]:
        """It alone: its run goes on."""
        return [self.processes[-1].pid]

    def all(self) -> list[int]:
        return processes(self.project)

    def kill(self) -> None:
        kill_all(self.project)  # an earlier daemon's run may still be there
        for process in self.processes:
            process.wait()

    def fell(self) -> bool:
        return self.processes[-1].poll() is not None

    def over(self) -> bool:
        if time.monotonic() - self._looked > LOOK_S:
            self._over = self._settled()
            self._looked = time.monotonic()
        return self._over

    def trouble(self) -> str:
        return "" if self._settled() else f"not settled: {told(self.project)[1]}"

    def _owners(self) -> set[int]:
        with self.project.catalog.read() as connection:
            return {int(owner.split(":")[1]) for owner in connection.execute(select(lease.c.owner)).scalars()}

    def _settled(self) -> bool:
        with again(self.project).catalog.read() as connection:
            made = set(connection.execute(select(artifact.c.partition)).scalars())
            left = connection.execute(select(slurm_job.c.key).where(slurm_job.c.ended_at.is_(None))).first()
            held = connection.execute(select(lease.c.key)).first()
        return made == set(self.cohort.names) and left is None and held is None and self._told()

    def _told(self) -> bool:
        known, active = told(self.project)
        return known == set(self.cohort.names) and not active


def told(project: Project) -> tuple[set[str], list[str]]:
    """The partitions that Dagster knows to be made, and the runs that it believes to go on."""
    import dagster as dg

    home = str(project.root / "dagster_home")
    with patch.dict(os.environ, DAGSTER_HOME=home), dg.DagsterInstance.from_config(home) as instance:
        ended = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
        active = [status for status in dg.DagsterRunStatus if status not in ended]
        runs = instance.get_runs(dg.RunsFilter(statuses=active))
        known = instance.get_materialized_partitions(dg.AssetKey("counted"))
        return set(known), [f"{run.run_id}: {run.status.value} {dict(run.tags)}" for run in runs]
