"""The process that needs Dagster, forked from `ct`: it has imported already what both need, a quarter of a short run.

A fork goes on with one thread, whatever others held, and shares the parent's files. So only a process with one thread
forks, no database is open then, and the child leaves the parent's work and its last deeds to the parent.
"""

import atexit
import gc
import os
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from ctcore.catalog.connection import close_databases

MODULE = "ct_assets.launch"
_OWN = Path(__file__).parents[1]


class ForkedLauncher:
    """A forked process as `subprocess.Popen` shows one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def send_signal(self, number: int) -> None:
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code; of one that a signal killed, the signal's number, negative."""
        self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code


def may_fork(root: Path) -> bool:
    """Whether a fork of this process is what a new one in this folder would be: it has one thread, of Python's or of a
    library's, no database is open, its streams are those that it was started with, and the folder has no ct of its
    own."""
    # SQLite forbids to carry an open database over a fork (sqlite.org/howtocorrupt.html, 2.6).
    if (
        not close_databases()
        or threading.active_count() > 1
        or (sys.stdout, sys.stderr) != (sys.__stdout__, sys.__stderr__)
    ):
        return False
    if (root / _OWN.name).is_dir() and not (root / _OWN.name).samefile(_OWN):
        return False
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:  # not Linux
        return False


def fork_launcher(
    root: Path, arguments: Sequence[str], variables: Mapping[str, str], handled: Collection[int]
) -> ForkedLauncher:
    """Run the launcher in a fork, in a session of its own. `handled`: the signals that are the parent's own to handle.

    OSError where this machine can start no process.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    child = os.fork()
    if child:
        return ForkedLauncher(child)
    code = 1
    try:
        _become_launcher(root, arguments, variables, handled)
        code = _ended(lambda: runpy.run_module(MODULE, run_name="__main__", alter_sys=True))
    finally:
        _exit(code)


def _become_launcher(
    root: Path, arguments: Sequence[str], variables: Mapping[str, str], handled: Collection[int]
) -> None:
    atexit._clear()  # pyright: ignore[reportAttributeAccessIssue]  # what the parent does at its end
    gc.disable()  # imports make no garbage; the launcher looks for it again
    for number in handled:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.setsid()
    os.chdir(root)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv[1:] = arguments
    if not sys.flags.safe_path:
        sys.path[0] = ""  # as with `python -c`: the folder's own `ct_assets` and `definitions`


def _ended(work: Callable[[], object]) -> int:
    """The exit code of this work, as Python gives it at its end."""
    try:
        work()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _exit(code: int) -> NoReturn:
    """End without what the parent would still do: it stands above this on the stack."""
    with suppress(Exception):
        close_databases()
    with suppress(Exception):
        atexit._run_exitfuncs()  # pyright: ignore[reportAttributeAccessIssue]
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
