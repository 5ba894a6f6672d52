"""② Places that cannot be written or read: what the system says of them, in words with a way out.

Needs the standard library only: compute nodes say the same.
"""

import errno
import os
import re
from pathlib import Path

FEW = 1 << 16  # bytes: with less, nothing can be written
_WAYS_OUT = {
    errno.ENOSPC: "the disk is full: free space there, or use a larger disk",
    errno.EDQUOT: "the quota is used up: remove files there, or ask for a larger quota",
    errno.EROFS: "the file system is read-only: have it mounted for writing, or move the project",
    errno.EACCES: "permission denied: ask the owner of the folder for the right to write there",
    errno.EPERM: "permission denied: this is for the owner of the files to do",
    errno.ESTALE: "its disk went away: have it mounted again",
    errno.ENOTCONN: "its disk went away: have it mounted again",
}
_NUMBER = re.compile(r"\[errno (\d+)\]", re.IGNORECASE)


def way_out(error: OSError) -> str | None:
    """What a person can do where the system refused to write."""
    return _WAYS_OUT.get(error.errno or 0)


def said_of(place: Path | str, error: BaseException, needed: int = 0) -> OSError | None:
    """The same as an error that names the place, for what libraries raise; None where it is about something else.

    `needed`: so many bytes were written, or were to be, as far as that is known.
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


def free_at(place: Path | str) -> int | None:
    """Bytes that may be written where a file is, or where it would be; None where that cannot be told."""
    for folder in (Path(place), *Path(place).absolute().parents):
        try:
            seen = os.statvfs(folder)
        except OSError:
            continue
        return seen.f_bavail * seen.f_frsize
    return None
