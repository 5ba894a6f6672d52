"""The processes of a sandbox: started apart from whoever asks, known again later, and none left behind."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "CT_SLURM_SANDBOX"  # in the environment of every daemon; slurmstepd has it from slurmd
FOREIGN = ("SLURM", "SBATCH", "SRUN", "SALLOC", "SQUEUE", "SACCT")
_DEFAULT = (signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGTERM)  # Python ignores one, `hold` the others
SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"  # not on everybody's PATH


@dataclass(frozen=True)
class Process:
    """A process by its number and the moment it began, so that another one with that number is never meant."""

    pid: int
    began: int

    @staticmethod
    def of(pid: int) -> "Process | None":
        """The one that has this number now."""
        began = _began(pid)
        return None if began is None else Process(pid, began)

    def alive(self) -> bool:
        with suppress(ChildProcessError):  # not a child of ours: whoever adopted it reaps it
            os.waitpid(self.pid, os.WNOHANG)
        return _began(self.pid) == self.began

    def send(self, number: signal.Signals) -> None:
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def end(self, seconds: float) -> None:
        """Ask, wait, then kill."""
        self.send(signal.SIGTERM)
        if not wait(lambda: not self.alive(), seconds):
            self.send(signal.SIGKILL)
            wait(lambda: not self.alive(), seconds)


@dataclass(frozen=True)
class Record:
    """The file that remembers which process a daemon is."""

    path: Path

    def process(self) -> Process | None:
        """The daemon, if it runs."""
        try:
            found = Process(*map(int, self.path.read_text().split()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return found if found.alive() else None

    def start(self, command: list[str], environment: dict[str, str], out: Path) -> Process:
        """In a session of its own, without our terminal."""
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        files = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(out), append, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        pid = os.posix_spawn(
            command[0], command, environment, file_actions=files, setsid=True, setsigmask=(), setsigdef=_DEFAULT
        )
        started = Process(pid, _began(pid) or 0)
        self.path.write_text(f"{started.pid} {started.began}")
        return started


def wait(until: Callable[[], bool], seconds: float) -> bool:
    """Look again and again; False when the time is over."""
    deadline = time.monotonic() + seconds
    while not (done := until()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return done


def program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM}")


def environment(conf: Path) -> dict[str, str]:
    """Ours, with this cluster's configuration instead of whatever the shell points to."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**kept, "SLURM_CONF": str(conf), "PATH": f"{kept.get('PATH', os.defpath)}:{SYSTEM}"}


def marked(folder: Path, conf: Path) -> Iterator[Process]:
    """Every process of a sandbox: its daemons and step managers, and what jobs started."""
    mark, of_conf = os.fsencode(f"{MARK}={folder}"), os.fsencode(f"SLURM_CONF={conf}")
    for pid, words in _environments():
        if mark in words or (of_conf in words and any(word.startswith(b"SLURM_JOB_ID=") for word in words)):
            began = _began(pid)
            if began is not None and pid != os.getpid():
                yield Process(pid, began)


def on_node(found: Iterable[Process], node: str) -> list[Process]:
    """Those that work on one virtual node."""
    word = os.fsencode(f"SLURMD_NODENAME={node}")
    environments = dict(_environments())
    return [process for process in found if word in environments.get(process.pid, ())]


def _environments() -> Iterator[tuple[int, list[bytes]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # gone, or somebody else's
                yield int(entry.name), (entry / "environ").read_bytes().split(b"\0")


def _began(pid: int) -> int | None:
    """In clock ticks since the machine started; None for one that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
