"""What a fault drill kills, and the proof that it was hit: who it was, what the drill had in Slurm just then, that it
was alive before and dead after."""

import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ctcore.execution.slurm.status_cache import prefix
from ctcore.project import Project
from tests.helpers.postgres import children
from tests.helpers.slurm import Slurm
from tools.slurm.processes import Process, marked, on_node, wait

DEAD_S = 10.0  # a daemon that is told to stop takes a moment


@dataclass(frozen=True)
class InSlurm:
    """Jobs of one project that its calls' files and squeue both have, and which node each is for."""

    queued: frozenset[str]
    running: frozenset[str]

    @property
    def all(self) -> frozenset[str]:
        return self.queued | self.running


@dataclass(frozen=True)
class Hit:
    """One round: whom it hit. `at_stake`: nodes whose jobs were in Slurm before, and which were not made after."""

    what: str
    victims: tuple[int, ...]
    alive: int
    dead: int
    queued: int
    running: int
    at_stake: int

    @property
    def counts(self) -> bool:
        """Whether somebody was hit while jobs were in the queue or running."""
        return bool(self.alive and self.at_stake)

    def row(self, number: int) -> str:
        pids = " ".join(map(str, self.victims[:4])) + (f" +{len(self.victims) - 4}" if len(self.victims) > 4 else "")
        fate = f"{self.alive} alive → {self.dead} dead"
        return f"{number:>4}  {self.what:<22} {self.queued:>3} queued {self.running:>3} running  {fate:<18} {pids}"


def hit(what: str, victims: Iterable[int], slurm: Slurm, project: Project, end: Callable[[], object]) -> Hit | None:
    """End these processes by what `end` does, and see to it that they are dead. None where there was none to end, or
    nothing of the project was in Slurm: then nothing was done."""
    found = [process for process in map(Process.of, sorted(set(victims))) if process is not None]
    if not found:
        return None
    before = in_slurm(slurm, project)
    alive = [process for process in found if process.alive()]
    if not alive or not before.all:
        return None
    end()
    at_stake = before.all - published(project)
    wait(lambda: not any(process.alive() for process in alive), DEAD_S)
    dead = [process for process in alive if not process.alive()]
    assert len(dead) == len(alive), (what, sorted({one.pid for one in alive} - {one.pid for one in dead}))
    pids = tuple(process.pid for process in alive)
    return Hit(what, pids, len(alive), len(dead), len(before.queued), len(before.running), len(at_stake))


def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def in_slurm(slurm: Slurm, project: Project) -> InSlurm:
    """By squeue, told apart from another project's of the same name by the files of the calls."""
    asked = ("squeue", "-h", "-r", "-t", "PD,CF,R,S", "-o", "%j|%K|%T")
    found: dict[str, list[str]] = {"PENDING": [], "RUNNING": []}
    for line in slurm.cluster.ask(*asked).stdout.splitlines():
        batch, index, state = line.split("|")
        place = project.work / "slurm" / batch / "calls" / f"{index}.json"
        if batch.startswith(prefix(project)):
            with suppress(FileNotFoundError):  # every job of its batch went well meanwhile
                node = json.loads(place.read_bytes())["node"][1]
                found["PENDING" if state == "PENDING" else "RUNNING"].append(node)
    return InSlurm(frozenset(found["PENDING"]), frozenset(found["RUNNING"]))


def published(project: Project) -> set[str]:
    """The partitions of which the store has an artifact, whoever knows of it."""
    return {path.parent.name for path in (project.store.root / "counted").glob("*/*") if path.is_dir()}


def workers(project: Project) -> list[int]:
    """Processes that make something for this project, whatever Slurm believes of them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().decode().split("\0")
            if "ctcore.execution.slurm.worker" in words and str(project.work) in words:
                found.append(int(path.parent.name))
    return found


def tools(project: Project) -> list[int]:
    """Programs that steps have started, in jobs."""
    return [pid for pid in _below(workers(project)) if _name(pid) == "sleep"]


def managers(project: Project) -> list[int]:
    """Slurm's own, one a job, above the processes of a step."""
    above = {_parent(pid) for pid in workers(project)}
    return [pid for pid in above if pid is not None and _name(pid).startswith("slurmstepd")]


def of_node(slurm: Slurm, name: str) -> list[int]:
    """A node's daemon and all that runs on it."""
    own = slurm.cluster.state()[name]
    others = on_node(list(marked(slurm.cluster.folder, slurm.cluster.places.conf)), name)
    return [*([own] if own else []), *(process.pid for process in others)]


def table(hits: Sequence[Hit]) -> str:
    return "\n".join(one.row(number) for number, one in enumerate(hits, 1))


def _below(pids: Iterable[int]) -> Iterator[int]:
    for pid in pids:
        for child in children(pid):
            yield child
            yield from _below([child])


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _parent(pid: int) -> int | None:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None
