"""kill -9 at a chosen moment: a child that counts what it does to disk and catalog, and dies before one of these."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

_DOING = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.link", "os.symlink"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


def forked(work: Callable[[], int], log: Path) -> int:
    """Run it in a child process. Its exit code, or minus the signal that ended it; `log` gets what it prints."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            code = work()
        except BaseException:  # nothing of the parent's may go on in the child
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Moments:
    """What a process does, by name and in its order; with `at`, it dies right before the one of that number."""

    def __init__(self, notes: Path, at: int | None = None) -> None:
        self.notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.at, self.count, self.busy = at, 0, False

    def watch(self) -> None:
        """From now on, and for ever: an audit hook cannot be taken out."""
        sys.addaudithook(self._audited)
        event.listen(Engine, "before_cursor_execute", lambda _c, _u, statement, *_: self._about_to(_verb(statement)))
        event.listen(Engine, "commit", lambda _connection: self._about_to("commit"))

    def _audited(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.busy:
            return
        if name == "open":
            path, mode, flags = arguments[:3]
            written = isinstance(flags, int) and flags & _WRITES and isinstance(path, str | bytes | os.PathLike)
            if written and not _is_device(os.fsdecode(path)):
                self._about_to(f"open {mode}")
        elif name in _DOING:
            self._about_to(name)

    def _about_to(self, name: str) -> None:
        self.busy = True
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(self.notes, f"{name}\n".encode())
        self.count += 1
        self.busy = False


def _is_device(path: str) -> bool:
    return path.startswith("/dev/") and not path.startswith("/dev/shm/")  # where tests keep their files


def _verb(statement: str) -> str:
    return statement.split(None, 1)[0].lower()
