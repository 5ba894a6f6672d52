"""Errors of places that cannot be read or written, or of too many open files, in plain words with a way out.

Needs only the standard library, because compute nodes give the same errors.
"""

import errno
import os
import re
import resource
from pathlib import Path

FEW = 1 << 16  # bytes: with less, nothing can be written
WENT_AWAY = "its disk went away: have it mounted again"
_WAYS_OUT = {
    errno.ENOSPC: "the disk is full: free space there, or use a larger disk",
    errno.EDQUOT: "the quota is used up: remove files there, or ask for a larger quota",
    errno.EROFS: "the file system is read-only: have it mounted for writing, or move the project",
    errno.EACCES: "permission denied: ask the owner of the folder for the right to write there",
    errno.EPERM: "permission denied: this is for the owner of the files to do",
    errno.ESTALE: WENT_AWAY,
    errno.ENOTCONN: WENT_AWAY,
}
_NUMBER = re.compile(r"\[errno (\d+)\]", re.IGNORECASE)


def way_out(error: OSError) -> str | None:
    """The way out of a refused write."""
    return _WAYS_OUT.get(error.errno or 0)


def reason_of(error: OSError) -> str:
    """Why the system refused something. For too many open files, with the limit and the way out."""
    return too_many_files() if error.errno == errno.EMFILE else error.strerror or str(error)


def too_many_files() -> str:
    limit = open_files_limit()
    return f"too many open files ({limit} are allowed here; raise the limit: `ulimit -n {max(1024, 2 * limit)}`)"


def open_files_limit() -> int:
    """How many files this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def are_files_short(wanted: int = 4) -> bool:
    """Whether so many more files cannot be opened now: a database says only that it cannot open its own."""
    opened: list[int] = []
    try:
        while len(opened) < wanted:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno == errno.EMFILE
    finally:
        for number in opened:
            os.close(number)
    return False


def disk_error(place: Path | str, error: BaseException, needed: int = 0) -> OSError | None:
    """A library's error as one that names the place; None if it is about something else.

    `needed`: the number of bytes to write, if known.
    """
    found = _NUMBER.search(str(error))
    number = getattr(error, "errno", None) or (int(found[1]) if found else 0)
    free = free_at(place)
    if number not in _WAYS_OUT and free is not None and free < FEW:
        number = errno.ENOSPC
    if number not in _WAYS_OUT:
        return None
    room = ""
    if number == errno.ENOSPC and free is not None:
        room = f" ({free:,} bytes are free" + (f", more than {needed:,} are needed" if needed else "") + ")"
    return OSError(number, _WAYS_OUT[number] + room, os.fspath(place))


def deleted_directory() -> str | None:
    """That the current directory was deleted, and the way out; None while it is there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        name = f", {os.environ['PWD']}," if os.environ.get("PWD") else ""
        return f"the current directory{name} was deleted: `cd` into one that is there, then run it again"
    except OSError:
        pass
    return None


def free_at(place: Path | str) -> int | None:
    """Bytes that can be written at a place, which need not exist yet; None if unknown."""
    for folder in (Path(place), *Path(place).absolute().parents):
        try:
            seen = os.statvfs(folder)
        except OSError:
            continue
        return seen.f_bavail * seen.f_frsize
    return None
