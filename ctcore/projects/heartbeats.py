"""Signs of life: a process that holds keys touches its own file now and then, so that other hosts see that it lives.

All times come from the file server: clocks of hosts are never compared.
"""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

FOLDER = "beats"
EVERY_S = 30.0
DEAD_S = 900.0
"""So long without a sign: the host is down, or cannot reach the project's disk, and could leave no result there."""
_KEPT_S = 30 * 24 * 3600
_beating: set[tuple[int, Path]] = set()


def start_heartbeat(work: Path, name: str, tidies: bool = True) -> None:
    """Give signs of life for this process from now on, until it ends. `tidies`: remove those of the long dead."""
    mine = os.getpid(), work
    if mine in _beating:
        return
    _beating.add(mine)
    place = _place(work, name)
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        if tidies:
            _forget(place.parent)
        place.touch()
    threading.Thread(target=_beat, args=(place,), daemon=True, name="ct-beat").start()


def is_silent(work: Path, name: str) -> bool:
    """Whether a process has given no sign for too long. One that never gave any (an earlier ct) is not."""
    try:
        last = _place(work, name).stat().st_mtime
    except OSError:
        return False
    return _now(work) - last > DEAD_S


def _place(work: Path, name: str) -> Path:
    return work / FOLDER / name.replace(":", "~")


def _beat(place: Path) -> None:
    while True:
        time.sleep(EVERY_S)
        with suppress(OSError):  # work/ may be emptied, and the disk away for a while
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()


def _now(work: Path) -> float:
    """By the clock that gives files their times."""
    probe = work / FOLDER / f".now-{os.getpid()}"
    try:
        probe.touch()
        moment = probe.stat().st_mtime
        probe.unlink()
    except OSError:  # one may only read here
        return time.time()
    return moment


def _forget(folder: Path) -> None:
    for path in folder.iterdir():
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - _KEPT_S:
                path.unlink()
