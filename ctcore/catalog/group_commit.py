"""Group commit: one process does the requests of all waiting processes with one commit.

A commit waits for the disk twice, whatever it contains. A process that finds nobody at work begins at once. The others
leave their requests in files, and the next one does all of them. A request may be done twice: if its process dies
before it answers, the next one repeats it. A waiting process sleeps until its bell rings: a pipe beside its file.
Because the bell can be missed (another host, a dead ringer), it also looks by itself now and then.
"""

import fcntl
import json
import os
import secrets
import select
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sqlalchemy.exc import SQLAlchemyError

from ctcore.errors import CtError
from ctcore.util import json_text

UNHEARD_S = 0.05  # after this time it is looked without a bell
LOOK_S = 0.0005
COMPANY = 0.3  # for this part of the time it took the last time, those are awaited who were about then
RECENT_S = 1.0
ORPHAN_S = 3600.0

_LEFT = (".ask", ".part", ".answer")
_UNDOABLE = (CtError, SQLAlchemyError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class Request:
    """A request as JSON. Two requests `about` the same thing are not done together."""

    actor: str
    about: Collection[str]
    body: Any


Act = Callable[[Sequence[Request]], Sequence[Any]]


def commit_in_group(folder: Path, mine: Request, act: Act) -> Any:
    """Have a request done. `act` returns an answer (JSON) for each request, or raises and has done nothing."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(_lock(folder))
            at_once = _locked(lock)
        except OSError:  # a folder of somebody else, or a disk that knows no locks: one after the other, then
            return act([mine])[0]
        return _lead(folder, lock, mine, act) if at_once else _waited(folder, lock, mine, act)


def _waited(folder: Path, lock: IO[bytes], mine: Request, act: Act) -> Any:
    asked = folder / f"{time.time_ns()}-{secrets.token_hex(4)}.ask"
    answer = asked.with_suffix(".answer")
    with _wake_pipe(asked.with_suffix(".bell")) as bell:
        held = _write(asked, {"actor": mine.actor, "about": list(mine.about), "body": mine.body})
        try:
            while not os.path.exists(answer):
                if _locked(lock):
                    # Again under the lock: the last leader may have answered after the look above.
                    if not os.path.exists(answer):
                        asked.unlink(missing_ok=True)
                        return _lead(folder, lock, mine, act)
                    break
                _sleep(bell)
            return json_text.loads(answer.read_bytes())
        finally:
            asked.unlink(missing_ok=True)
            answer.unlink(missing_ok=True)
            held.close()


def _lead(folder: Path, lock: IO[bytes], mine: Request, act: Act) -> Any:
    """Do the requests of all waiting processes, release the lock, and ring: some have answers, and another one leads
    next."""
    try:
        return _done(folder, lock, mine, act)
    finally:
        # In this order: a process that wakes while the lock is held would sleep for another `UNHEARD_S`.
        fcntl.flock(lock, fcntl.LOCK_UN)
        _wake_all(folder)


def _done(folder: Path, lock: IO[bytes], mine: Request, act: Act) -> Any:
    """Do all waiting requests together; if that fails, one by one."""
    company, took = _recent_load(lock)
    if company == 1:
        _tidy(folder)
    batch = dict(_disjoint(mine, _waiting(folder, company, took)))
    began = time.monotonic()
    if batch:
        try:
            first, *others = act([mine, *batch.values()])
        except _UNDOABLE:
            return act([mine])[0]
        for path, answer in zip(batch, others, strict=True):
            _write(path.with_suffix(".answer"), answer).close()
            path.unlink(missing_ok=True)
    else:
        first = act([mine])[0]
    company = len(_asked(folder)) + len(batch) + 1
    os.pwrite(lock.fileno(), b"%-8d %-12.6f" % (company, time.monotonic() - began), 0)
    return first


@contextmanager
def _wake_pipe(path: Path) -> Iterator[int | None]:
    """A pipe at which this process is rung for; none on a disk that knows no pipes."""
    try:
        os.mkfifo(path)
    except OSError:
        yield None
        return
    # Opened for both ends: with a writer of its own, the pipe never reports an end of file. POSIX leaves it undefined
    # for a FIFO, Linux allows it (fifo(7)).
    pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        yield pipe
    finally:
        os.close(pipe)
        path.unlink(missing_ok=True)


def _sleep(bell: int | None) -> None:
    if bell is None:
        time.sleep(UNHEARD_S)
    elif select.select([bell], [], [], UNHEARD_S)[0]:
        os.read(bell, 64)


def _wake_all(folder: Path) -> None:
    for name in os.listdir(folder):
        if name.endswith(".bell"):
            # Without a reader on this host, opening for writing fails with ENXIO (fifo(7)): that process has ended, or
            # runs on another host, and looks by itself.
            with suppress(OSError):
                pipe = os.open(folder / name, os.O_WRONLY | os.O_NONBLOCK)
                try:
                    os.write(pipe, b".")
                finally:
                    os.close(pipe)


def _lock(folder: Path) -> IO[bytes]:
    """Open the lock file, not for appending: with O_APPEND, Linux writes at the end whatever offset `pwrite` gets."""
    return open(folder / "lock", "r+b", opener=lambda path, flags: os.open(path, flags | os.O_CREAT, 0o666))


def _locked(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _recent_load(lock: IO[bytes]) -> tuple[int, float]:
    """The number of requests served or received a moment ago, and how long it took."""
    said = os.pread(lock.fileno(), 21, 0).split()
    is_recent = time.time() - os.fstat(lock.fileno()).st_mtime < RECENT_S
    return (int(said[0]), float(said[1])) if len(said) == 2 and is_recent else (1, 0.0)


def _asked(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith(".ask"))


def _waiting(folder: Path, company: int, took: float) -> list[Path]:
    """The waiting requests, in the order of their arrival."""
    deadline = time.monotonic() + COMPANY * took
    while True:
        found = _asked(folder)
        if len(found) + 1 >= company or time.monotonic() > deadline:
            return [folder / name for name in found]
        time.sleep(LOOK_S)


def _disjoint(mine: Request, paths: Sequence[Path]) -> Iterator[tuple[Path, Request]]:
    about = set(mine.about)
    for path in paths:
        try:
            one = Request(**json_text.loads(path.read_bytes()))
        except (OSError, ValueError):  # whoever asked gave up
            continue
        if about.isdisjoint(one.about):
            about |= set(one.about)
            yield path, one


def _tidy(folder: Path) -> None:
    """Remove requests of dead processes, unclaimed answers, and bells of the dead."""
    for path in (*queued_requests(folder), *folder.glob("*.bell")):
        try:
            if time.time() - path.stat().st_mtime > ORPHAN_S and (path.suffix == ".bell" or not is_awaited(path)):
                path.unlink()
        except FileNotFoundError:
            continue


def queued_requests(folder: Path) -> list[Path]:
    """Requests and answers that lie in a folder, in their order."""
    return sorted(path for path in folder.glob("*.*") if path.suffix in _LEFT)


def is_awaited(path: Path) -> bool:
    """Whether the requesting process lives and holds its file; a file being written is held by its writer."""
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


@contextmanager
def pause_commits(folders: Iterable[Path]) -> Iterator[None]:
    """Inside this block, requests in these folders wait."""
    with ExitStack() as stack:
        for folder in sorted(folders):
            fcntl.flock(stack.enter_context(_lock(folder)), fcntl.LOCK_EX)
        yield


def _write(path: Path, value: Any) -> IO[str]:
    """The file, locked until it is closed."""
    part = path.with_suffix(".part")
    stream = part.open("w")
    # The lock belongs to the open file, not to its name (flock(2)): it survives the rename, and the kernel lets it go
    # when the process dies. So a request without a lock is one that nobody waits for.
    fcntl.flock(stream, fcntl.LOCK_EX)
    stream.write(json.dumps(value))
    stream.flush()
    part.rename(path)
    return stream
