"""② What several processes ask for at the same time, done by one of them for all that wait: one commit instead of many.

A commit waits for the disk twice, whatever is in it. Whoever finds nobody at work begins at once; the others leave what
they ask in a file, and whoever is next does all that lies there. Requests can be done twice: if whoever did them dies
before it says so, the next one does them again. Who waits sleeps until it is rung for: a pipe beside its file is the
bell. Where that is not heard (another host's, or whoever should ring is dead), it looks by itself now and then.
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

from ctcore import jsontext
from ctcore.errors import CtError

UNHEARD_S = 0.05  # after this time it is looked without a bell
LOOK_S = 0.0005
COMPANY = 0.3  # for this part of the time it took the last time, those are awaited who were about then
RECENT_S = 1.0
ORPHAN_S = 3600.0

_LEFT = (".ask", ".part", ".answer")
_UNDOABLE = (CtError, SQLAlchemyError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class Request:
    """What somebody asks, as JSON. Two that are `about` the same thing are not done in one go."""

    actor: str
    about: Collection[str]
    body: Any


Act = Callable[[Sequence[Request]], Sequence[Any]]


def together(folder: Path, mine: Request, act: Act) -> Any:
    """Have it done; `act` gives an answer (JSON) a request, or raises and has done nothing."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(_lock(folder))
            at_once = _locked(lock)
        except OSError:  # a folder of somebody else, or a disk that knows no locks: one after the other, then
            return act([mine])[0]
        return _led(folder, lock, mine, act) if at_once else _waited(folder, lock, mine, act)


def _waited(folder: Path, lock: IO[bytes], mine: Request, act: Act) -> Any:
    asked = folder / f"{time.time_ns()}-{secrets.token_hex(4)}.ask"
    answer = asked.with_suffix(".answer")
    with _bell(asked.with_suffix(".bell")) as bell:
        held = _write(asked, {"actor": mine.actor, "about": list(mine.about), "body": mine.body})
        try:
            while not os.path.exists(answer):
                if _locked(lock):
                    if not os.path.exists(answer):
                        asked.unlink(missing_ok=True)
                        return _led(folder, lock, mine, act)
                    break
                _sleep(bell)
            return jsontext.loads(answer.read_bytes())
        finally:
            asked.unlink(missing_ok=True)
            answer.unlink(missing_ok=True)
            held.close()


def _led(folder: Path, lock: IO[bytes], mine: Request, act: Act) -> Any:
    """Do it for all that wait, let go of the lock, and ring: some have their answers, and one of the others is next."""
    try:
        return _done(folder, lock, mine, act)
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)
        _ring(folder)


def _done(folder: Path, lock: IO[bytes], mine: Request, act: Act) -> Any:
    """Do it for all that wait. What cannot be done together, everybody does alone."""
    company, took = _company(lock)
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
def _bell(path: Path) -> Iterator[int | None]:
    """A pipe at which this process is rung for; none on a disk that knows no pipes."""
    try:
        os.mkfifo(path)
    except OSError:
        yield None
        return
    pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # with a writer of its own it never ends
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


def _ring(folder: Path) -> None:
    for name in os.listdir(folder):
        if name.endswith(".bell"):
            with suppress(OSError):  # nobody is there any more, or not on this host
                pipe = os.open(folder / name, os.O_WRONLY | os.O_NONBLOCK)
                try:
                    os.write(pipe, b".")
                finally:
                    os.close(pipe)


def _lock(folder: Path) -> IO[bytes]:
    """Not opened to append: Linux would then write at the end, wherever `pwrite` is told to."""
    return open(folder / "lock", "r+b", opener=lambda path, flags: os.open(path, flags | os.O_CREAT, 0o666))


def _locked(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _company(lock: IO[bytes]) -> tuple[int, float]:
    """How many were served the last time or came meanwhile, if that was a moment ago, and how long it took."""
    said = os.pread(lock.fileno(), 21, 0).split()
    is_recent = time.time() - os.fstat(lock.fileno()).st_mtime < RECENT_S
    return (int(said[0]), float(said[1])) if len(said) == 2 and is_recent else (1, 0.0)


def _asked(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith(".ask"))


def _waiting(folder: Path, company: int, took: float) -> list[Path]:
    """What lies there, in the order in which it was asked."""
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
            one = Request(**jsontext.loads(path.read_bytes()))
        except (OSError, ValueError):  # whoever asked gave up
            continue
        if about.isdisjoint(one.about):
            about |= set(one.about)
            yield path, one


def _tidy(folder: Path) -> None:
    """What those left who died, or for whom nobody came, and bells of the dead."""
    for path in (*lying(folder), *folder.glob("*.bell")):
        try:
            if time.time() - path.stat().st_mtime > ORPHAN_S and (path.suffix == ".bell" or not is_awaited(path)):
                path.unlink()
        except FileNotFoundError:
            continue


def lying(folder: Path) -> list[Path]:
    """Requests and answers that lie in a folder, in their order."""
    return sorted(path for path in folder.glob("*.*") if path.suffix in _LEFT)


def is_awaited(path: Path) -> bool:
    """Whether whoever asked this lives, and so holds it; what is written is held by who writes it."""
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


@contextmanager
def halted(folders: Iterable[Path]) -> Iterator[None]:
    """Meanwhile nothing that lies in these folders is done; whoever asks waits."""
    with ExitStack() as stack:
        for folder in sorted(folders):
            fcntl.flock(stack.enter_context(_lock(folder)), fcntl.LOCK_EX)
        yield


def _write(path: Path, value: Any) -> IO[str]:
    """The file, locked until it is closed."""
    part = path.with_suffix(".part")
    stream = part.open("w")
    fcntl.flock(stream, fcntl.LOCK_EX)
    stream.write(json.dumps(value))
    stream.flush()
    part.rename(path)
    return stream
