"""What a sandbox is made of: its shape, its folder, and the configuration files written from templates/."""

import getpass
import hashlib
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template

TEMPLATES = Path(__file__).parent / "templates"
LONGEST = 60  # a unix socket's path ends at 107 bytes, and slurmstepd adds its own name to the spool folder
CGROUPS = Path("/sys/fs/cgroup/memory")  # the memory controller of version 1
PORTS = range(20_000, 32_000)  # below those that Linux hands out by itself
_LOOK_EVERY_SECOND = "TaskPlugin=task/none\nJobAcctGatherParams=OverMemoryKill"


@dataclass(frozen=True)
class Shape:
    """How large the cluster is. The CPUs are declared, not there: jobs share what the machine has."""

    nodes: int = 2
    cpus: int = 8
    memory: int = 4096  # MB a node
    max_array: int = 1001  # MaxArraySize: the largest index is one less

    def names(self) -> list[str]:
        return [f"n{number}" for number in range(1, self.nodes + 1)]


@dataclass(frozen=True)
class Places:
    """Where the files of a sandbox are."""

    folder: Path

    @property
    def conf(self) -> Path:
        return self.folder / "etc" / "slurm.conf"

    @property
    def run(self) -> Path:
        """Sockets, spool folders and process records; through a short link where the path is too long for sockets."""
        real = self.folder / "run"
        if len(os.fsencode(real)) <= LONGEST:
            return real
        return Path(tempfile.gettempdir()) / f"ct-slurm-{os.getuid()}-{_mark(self.folder)}"

    @property
    def cgroup(self) -> Path:
        """This sandbox's own part of the memory controller, where there is one that we may use."""
        return CGROUPS / f"ct-slurm-{_mark(self.folder)}"

    def log(self, piece: str) -> Path:
        return self.folder / "log" / f"{piece}.log"

    def out(self, piece: str) -> Path:
        """What a daemon says before, or instead of, its own log."""
        return self.folder / "log" / f"{piece}.out"

    def remove_cgroup(self) -> bool:
        """Whether it is gone: the kernel lets nothing be removed in which processes are, or were a moment ago."""
        with suppress(OSError):
            for folder, _, _ in os.walk(self.cgroup, topdown=False):
                Path(folder).rmdir()
        return not self.cgroup.exists()

    def limits_memory(self) -> bool:
        """Does the kernel enforce --mem (OUT_OF_MEMORY)? Otherwise Slurm looks every second, and kills (FAILED)."""
        return (self.folder / "cgroup" / "memory").is_dir()

    def make(self) -> None:
        for name in ("etc", "run", "log", "state", "db"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        if self.run != self.folder / "run":
            self.run.unlink(missing_ok=True)
            self.run.symlink_to(self.folder / "run")

    def make_cgroup(self) -> None:
        """Slurm finds it under a folder of ours, as if the controller were mounted there: no two sandboxes meet."""
        (self.folder / "cgroup").mkdir(exist_ok=True)
        link = self.folder / "cgroup" / "memory"
        link.unlink(missing_ok=True)
        with suppress(OSError):  # not mounted, or not ours to write
            self.cgroup.mkdir(exist_ok=True)
            link.symlink_to(self.cgroup)


def configure(places: Places, shape: Shape) -> None:
    """Write every file of etc/, with ports that are free now."""
    places.make_cgroup()
    constrain = places.limits_memory()
    ports = _free_ports(shape.nodes + 2)
    values = {
        "folder": places.folder,
        "run": places.run,
        "user": getpass.getuser(),
        "host": socket.gethostname().partition(".")[0],
        "controller_port": next(ports),
        "accounting_port": next(ports),
        "memory_per_cpu": shape.memory // shape.cpus // 2,
        "max_array": shape.max_array,
        "constrain": "yes" if constrain else "no",
        "memory_limit": "TaskPlugin=task/cgroup" if constrain else _LOOK_EVERY_SECOND,
    }
    values["nodes"] = "\n".join(_node(name, next(ports), shape) for name in shape.names())
    for template in TEMPLATES.iterdir():
        written = places.conf.parent / template.name
        written.write_text(Template(template.read_text()).substitute(values))
        written.chmod(0o600 if written.name == "slurmdbd.conf" else 0o644)  # slurmdbd takes no other mode
    key = places.conf.parent / "munge.key"
    key.unlink(missing_ok=True)
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)


def port(places: Places, name: str) -> int:
    """A port that is written in slurm.conf."""
    lines = places.conf.read_text().splitlines()
    return next(int(line.partition("=")[2]) for line in lines if line.startswith(f"{name}="))


def _mark(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]


def _node(name: str, number: int, shape: Shape) -> str:
    host = socket.gethostname().partition(".")[0]
    where = f"NodeHostname={host} NodeAddr=127.0.0.1 Port={number}"
    return f"NodeName={name} {where} CPUs={shape.cpus} RealMemory={shape.memory} Feature={name},sandbox State=UNKNOWN"


def _free_ports(number: int) -> Iterator[int]:
    """All held until the last is found, so that they differ; taken at random, so that two sandboxes hardly meet."""
    held: list[socket.socket] = []
    try:
        for candidate in random.sample(PORTS, len(PORTS)):
            probe = socket.socket()
            held.append(probe)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                held.pop().close()
            if len(held) == number:
                break
        return iter([probe.getsockname()[1] for probe in held])
    finally:
        for probe in held:
            probe.close()
