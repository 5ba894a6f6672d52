"""A cluster in a folder: started, stopped, and taken apart piece by piece."""

import fcntl
import json
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cached_property
from getpass import getuser
from pathlib import Path

from tools.slurm.processes import MARK, Process, Record, environment, marked, on_node, program, wait
from tools.slurm.settings import Places, Shape, configure, port

PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacct")
PACKAGES = "slurmctld slurmd slurmdbd slurm-client munge mariadb-server"
BASE = ("munged", "mariadbd", "slurmdbd", "slurmctld")  # in the order of starting; nodes come before slurmctld
SECONDS = 60
WORKING = {"idle", "mixed", "allocated", "completing"}


class NoSlurm(Exception):
    """There is none on this machine, or it does not start."""


class Cluster:
    """The cluster of a folder. Pieces are munged, mariadbd, slurmdbd, slurmctld, and each node by its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.places = Places(self.folder)

    @cached_property
    def environment(self) -> dict[str, str]:
        """For whoever speaks to this cluster."""
        return environment(self.places.conf)

    @property
    def shape(self) -> Shape | None:
        """As it was made; None where there is no cluster in the folder."""
        try:
            return Shape(**json.loads((self.folder / "shape.json").read_text()))
        except FileNotFoundError:
            return None

    def up(self, shape: Shape | None = None) -> None:
        """Start what is not running. Only a cluster of which nothing runs gets new ports, or another shape."""
        if lacks := missing():
            raise NoSlurm(lacks)
        self.places.make()
        with self._alone():
            if not any(self.state().values()):
                shape = shape or self.shape or Shape()
                configure(self.places, shape)
                (self.folder / "shape.json").write_text(json.dumps(asdict(shape)))
            elif shape not in (None, self.shape):
                raise NoSlurm(f"{self.folder} runs in another shape; first: python -m tools.slurm down {self.folder}")
            for piece in self._order():
                self._begin(piece)
            for name in self._nodes():
                self._wait(name, lambda name=name: self.node_works(name))
            self._wait("slurmdbd", lambda: self.ask("sacct", "-n").returncode == 0)

    def down(self, remove: bool = False) -> None:
        """End jobs and pieces, whatever state they are in; with `remove`, delete the folder too."""
        if self.shape is None:
            return
        with self._alone():
            if not remove:
                self._end_jobs()
            for piece in reversed(self._order()):
                self._end(piece, 0.0 if remove else 10.0)
            for left in marked(self.folder, self.places.conf):
                left.send(signal.SIGKILL)
            wait(lambda: not list(marked(self.folder, self.places.conf)), SECONDS)
            if not wait(self.places.remove_cgroup, SECONDS):
                raise NoSlurm(f"{self.places.cgroup} cannot be removed; `rmdir` it and what is below")
        if self.places.run.is_symlink():
            self.places.run.unlink()
        if remove:
            shutil.rmtree(self.folder)

    def state(self) -> dict[str, int | None]:
        """The process of each piece; None for one that does not run."""
        found = {piece: self._record(piece).process() for piece in self._order()}
        return {piece: process.pid if process else None for piece, process in found.items()}

    def start(self, piece: str) -> None:
        """Start one piece again, and wait until it works."""
        self._begin(piece)
        if piece in self._nodes():
            self._wait(piece, lambda: self.node_works(piece))

    def stop(self, piece: str) -> None:
        """As an administrator would. Jobs of a node go on."""
        self._end(piece, 10.0)

    def kill(self, piece: str) -> None:
        """Kill -9 of one daemon. A node's jobs go on, unseen: as when the network is cut."""
        self._end(piece, 0.0)

    def crash(self, node: str) -> None:
        """Kill a node and all that runs on it, at once: as when the power fails."""
        self.kill(node)
        for process in on_node(list(marked(self.folder, self.places.conf)), node):
            process.send(signal.SIGKILL)

    def restart(self, piece: str) -> None:
        self.stop(piece)
        self.start(piece)

    def ask(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a Slurm command against this cluster."""
        try:
            return subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", f"no answer in {SECONDS} s")

    def node_works(self, name: str) -> bool:
        said = self.ask("sinfo", "-h", "-N", "-p", "main", "-n", name, "-o", "%T").stdout.strip()
        return said in WORKING

    def _nodes(self) -> list[str]:
        return self.shape.names() if self.shape else []

    def _order(self) -> list[str]:
        return [*BASE[:3], *self._nodes(), BASE[3]]

    def _record(self, piece: str) -> Record:
        return Record(self.folder / "run" / f"{piece}.process")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One at a time starts or stops a cluster."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _begin(self, piece: str) -> None:
        """Nodes are not waited for: they register when the controller is there."""
        record = self._record(piece)
        if record.process() is None:
            self._prepare(piece)
            command = self._command(piece)
            record.start(
                [program(command[0]) or command[0], *command[1:]], self._daemons(piece), self.places.out(piece)
            )
        if piece not in self._nodes():
            self._wait(piece, lambda: self._answers(piece))

    def _prepare(self, piece: str) -> None:
        if piece == "munged":
            for left in ("munge.sock", "munge.sock.lock"):
                (self.places.run / left).unlink(missing_ok=True)
        elif piece == "mariadbd" and not (self.folder / "db" / "mysql").is_dir():
            self._make_database()
        elif piece in self._nodes():
            (self.places.run / f"spool-{piece}").mkdir(exist_ok=True)

    def _make_database(self) -> None:
        options = ["--skip-test-db", "--skip-name-resolve", "--auth-root-authentication-method=normal"]
        tuning = ["--innodb-use-native-aio=0", "--innodb-flush-log-at-trx-commit=0", "--innodb-log-file-size=32M"]
        place = ["--no-defaults", f"--datadir={self.folder / 'db'}", f"--user={getuser()}"]
        made = self.ask("mariadb-install-db", *place, *options, *tuning)
        if made.returncode:
            raise NoSlurm(f"mariadb-install-db failed: {made.stdout[-1000:]}{made.stderr[-1000:]}")

    def _command(self, piece: str) -> list[str]:
        etc, run = self.places.conf.parent, self.places.run
        if piece == "munged":
            files = {"key-file": etc / "munge.key", "log-file": self.places.log(piece)}
            files |= {"socket": run / "munge.sock", "pid-file": run / "munged.pid", "seed-file": run / "munged.seed"}
            return ["munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items())]
        if piece == "mariadbd":
            return ["mariadbd", f"--defaults-file={etc / 'my.cnf'}"]
        if piece == "slurmdbd":
            return ["slurmdbd", "-D"]
        if piece == "slurmctld":
            return ["slurmctld", "-D", "-f", str(self.places.conf)]
        return ["slurmd", "-D", "-N", piece, "-f", str(self.places.conf)]

    def _daemons(self, piece: str) -> dict[str, str]:
        extra = {MARK: str(self.folder)}
        if piece == "slurmdbd":
            extra["MYSQL_UNIX_PORT"] = str(self.places.run / "mariadb.sock")
        if piece in self._nodes():
            extra["SLURMD_NODENAME"] = piece
        return {**self.environment, **extra}

    def _answers(self, piece: str) -> bool:
        if piece == "slurmctld":
            return " UP" in self.ask("scontrol", "ping").stdout
        if piece == "slurmdbd":
            return _connects(socket.AF_INET, ("127.0.0.1", port(self.places, "AccountingStoragePort")))
        name = {"munged": "munge.sock", "mariadbd": "mariadb.sock"}[piece]
        return _connects(socket.AF_UNIX, str(self.places.run / name))

    def _wait(self, piece: str, works: Callable[[], bool]) -> None:
        def settled() -> bool:
            return works() or self._record(piece).process() is None

        if not (wait(settled, SECONDS) and works()):
            raise NoSlurm(f"{piece} does not work: {self._last_words(piece)}")

    def _last_words(self, piece: str) -> str:
        name, said = piece, ""
        if piece in self._nodes():
            name = f"slurmd-{piece}"
            said = self.ask("sinfo", "-h", "-N", "-p", "main", "-n", piece, "-o", "%T: %E").stdout.strip()
        for path in (self.places.out(piece), self.places.log(name)):
            with suppress(FileNotFoundError):
                said += f"\n{path}:\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])
        return said or f"see {self.folder / 'log'}"

    def _end(self, piece: str, seconds: float) -> None:
        process: Process | None = self._record(piece).process()
        if process and seconds:
            process.end(seconds)
        elif process:
            process.send(signal.SIGKILL)
            wait(lambda: not process.alive(), SECONDS)

    def _end_jobs(self) -> None:
        if self._record("slurmctld").process():
            self.ask("scancel", "--user", getuser())
            wait(lambda: not self.ask("squeue", "-h", "-t", "R,CG,S", "-o", "%i").stdout.strip(), 10.0)


def missing() -> str:
    """What this machine lacks, and the way out; empty where it lacks nothing."""
    absent = [name for name in PROGRAMS if program(name) is None]
    return f"no {', '.join(absent)} on this machine; apt-get install {PACKAGES}" if absent else ""


def _connects(family: int, address: "str | tuple[str, int]") -> bool:
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0
