"""Find all descendants of a process, and end them with it."""

import ctypes
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_TRIES = 100  # who starts others all the time is killed itself before long
_WAIT_S = 0.01


def run_in_child(work: Callable[[], object]) -> str:
    """Do it in a child process, which SIGTERM ends like Ctrl-C, and with it whatever it has started and left running.
    How it ended: `exit code 7`, `signal SIGSEGV`."""
    adopt_orphans()
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # until it is known what becomes of it
    me, child = os.getpid(), os.fork()
    if child == 0:
        end_with_parent(signal.SIGKILL)  # whoever looks for the parent takes the work for ended, too
        if os.getppid() != me:  # it ended before the line above: no signal comes any more (prctl(2))
            os._exit(1)
        os.setpgid(0, 0)  # a signal of the work to its whole group reaches nobody else
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        run_and_exit(work)
    signal.signal(signal.SIGTERM, lambda number, _frame: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_below(os.getpid())
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def run_and_exit(work: Callable[[], object]) -> NoReturn:
    """Run the work in a forked child, without anything that the parent was doing."""
    code = 1
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def adopt_orphans() -> None:
    """From now on, what processes below this one leave behind when they end stays below it. Linux only."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(number: signal.Signals) -> None:
    """Send this process a signal when its parent ends, in whatever way. Linux only; elsewhere nothing happens."""
    _prctl(_PR_SET_PDEATHSIG, number)


def _prctl(what: int, value: int) -> None:
    with suppress(OSError, AttributeError):  # of Linux only
        ctypes.CDLL(None).prctl(what, int(value))


def end_tree(pid: int) -> None:
    """Kill a process and its descendants, the process first so that it starts no more."""
    below = _below(pid)
    for one in (pid, *below):
        _kill(one)


def end_below(pid: int) -> None:
    """Kill all processes below this one, and wait until they are gone."""
    if pid == os.getpid() and not _has_children():
        return  # to look through all processes takes longer than a short call
    for _ in range(_TRIES):
        found = _below(pid)
        if not found:
            return
        for one in found:
            _kill(one)
        time.sleep(_WAIT_S)


def _has_children() -> bool:
    """Whether there is a process below this one. Every other one below has one of them above it."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def children_of(pid: int) -> list[int]:
    """The living children of a process."""
    return _children().get(pid, [])


def _below(pid: int) -> list[int]:
    """All living descendants of a process, the nearest first."""
    children = _children()
    found = list(children.get(pid, ()))
    for one in found:  # it grows
        found += children.get(one, ())
    return found


def _children() -> dict[int, list[int]]:
    """The living processes of this machine by their parents."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(stat.parent.name))
    return children


def process_name(pid: int | None = None) -> str:
    """`host:pid:start`: a process, told apart from a later one of the same number."""
    number = os.getpid() if pid is None else pid
    return f"{host_name()}:{number}:{started_at(number) or 0}"


@cache
def host_name() -> str:
    return socket.gethostname().replace(":", "_")


def started_at(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None where there is none, or only its corpse."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # Field 22 of proc(5), counted behind the name, which may hold blanks and brackets. A corpse (Z) works on nothing.
    return None if fields[0] == "Z" else int(fields[19])
