"""Slurm's answers for all processes of a project: one process asks for all, and the others read its answer.

An answer carries the time of its question, by a clock that only processes of one host share; so each host asks for
itself. Without file locks, each process asks for itself.
"""

import fcntl
import os
import socket
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path

from ctcore.execution.slurm import client
from ctcore.execution.slurm.client import Named, TaskStatus
from ctcore.project import Project
from ctcore.util import json_text
from ctcore.util.atomic_file import write_json

PATIENCE_S = 10.0  # another process has been asking for so long: Slurm does not answer it
_LOOK_S = 0.05
# `time.monotonic` begins anew with each boot of a host (clock_gettime(2)): moments of two boots cannot be compared.
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_WANTED = ".wanted"


@dataclass(frozen=True)
class Answer:
    """When it was asked for and had, by `time.monotonic`; no `rows` where Slurm gave none. `arrays`: of accounting."""

    asked_at: float
    answered_at: float
    rows: dict[Named, TaskStatus] | None
    arrays: frozenset[str] = frozenset()

    def is_recent(self, seconds: float) -> bool:
        return time.monotonic() < self.answered_at + seconds

    def is_of(self, array: str, after: float) -> bool:
        """Whether the answer can include accounting's state of this array at that moment."""
        return array in self.arrays and self.asked_at >= after


def prefix(project: Project) -> str:
    """With it begin the names of all arrays of a project."""
    return f"ct-{project.id}-"


class Answers:
    """One process's access to the shared answers. With `patience_s` it waits for another process that is asking."""

    def __init__(self, project: Project, patience_s: float = 0.0) -> None:
        self._prefix = prefix(project)
        self._folder = project.work / "together" / f"slurm-{socket.gethostname()}-{os.getuid()}"
        self._patience_s = patience_s
        self._own: dict[str, Answer] = {}

    def queue(self, every_s: float = 0.0, after: float = inf) -> Answer | None:
        """The project's jobs in the queue, from an answer younger than this or asked after that moment. None:
        another process is asking just now."""

        def ask() -> Answer:
            asked, seen = time.monotonic(), client.queue()
            rows = None if seen is None else {one.named: one for one in seen if one.name.startswith(self._prefix)}
            return Answer(asked, time.monotonic(), rows)

        return self._shared("queue", lambda answer: answer.is_recent(every_s) or answer.asked_at > after, ask)

    def account(self, wanted: Collection[str], every_s: float = 0.0) -> Answer | None:
        """Accounting's rows of arrays. It is queried at most once in this many seconds, and then for everybody's
        arrays. Arrays that an answer does not cover (`is_of`) come later."""

        def ask() -> Answer:
            others = list(self._folder.glob(f"*{_WANTED}"))
            arrays = {*wanted, *(path.stem for path in others)}
            asked, rows = time.monotonic(), client.account(sorted(arrays))
            with suppress(OSError):
                # Only after the answer: if this process is killed while it asks, the next one still knows what others
                # want.
                for path in others:
                    path.unlink(missing_ok=True)
            return Answer(asked, time.monotonic(), rows, frozenset(arrays))

        answer = self._shared("account", lambda answer: answer.is_recent(every_s), ask)
        with suppress(OSError):
            for array in set(wanted) - (answer.arrays if answer else frozenset()):
                (self._folder / f"{array}{_WANTED}").touch()
        return answer

    def _shared(self, name: str, serves: Callable[[Answer], bool], ask: Callable[[], Answer]) -> Answer | None:
        deadline = time.monotonic() + self._patience_s
        while (answer := self._read_or_ask(name, serves, ask)) is None and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        return answer

    def _read_or_ask(self, name: str, serves: Callable[[Answer], bool], ask: Callable[[], Answer]) -> Answer | None:
        path = self._folder / f"{name}.json"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            found = _read(path)
            if found is None or not serves(found):
                with path.with_suffix(".lock").open("ab") as lock:
                    # The kernel frees the lock of a process that dies: no killed asker holds anybody up.
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # Again: whoever held the lock until now may just have written what is wanted.
                    found = _read(path)
                    if found is None or not serves(found):
                        found = ask()
                        _write(path, found)
        except BlockingIOError:
            return None
        except OSError:  # a folder of somebody else, or a file system that knows no locks
            found = self._own.get(name)
            if found is None or not serves(found):
                found = self._own[name] = ask()
        return found


def _clock() -> list[str | None]:
    """The identity of host and cluster, which two processes must share to compare their times."""
    return [_BOOT.read_text().strip(), os.environ.get("SLURM_CONF")]


def _read(path: Path) -> Answer | None:
    """None where there is none that this process can tell the age of."""
    clock = _clock()
    try:
        said = json_text.loads(path.read_bytes())
        rows = said["rows"] if said["rows"] is None else [TaskStatus(**row) for row in said["rows"]]
        known = None if rows is None else {seen.named: seen for seen in rows}
        answer = Answer(said["asked"], said["had"], known, frozenset(said["arrays"]))
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    return answer if said["clock"] == clock and answer.answered_at <= time.monotonic() else None


def _write(path: Path, answer: Answer) -> None:
    rows = None if answer.rows is None else [vars(seen) for seen in answer.rows.values()]
    said = {
        "clock": _clock(),
        "asked": answer.asked_at,
        "had": answer.answered_at,
        "arrays": sorted(answer.arrays),
        "rows": rows,
    }
    with suppress(OSError):
        write_json(path, said)
