"""Write files atomically: a reader sees the old file or the new one, even if the writer is killed."""

import errno
import json
import os
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

from ctcore.util.disk_errors import disk_error


def write_whole(path: Path, content: bytes, mode: int | None = None, durable: bool = False) -> Path:
    """Write a file beside its place, and put it there by one renaming. A folder that is missing is made; a link stays a
    link, and a file that was there keeps its rights, unless `mode` says others.

    `durable`: wait until it is on the disk. It costs milliseconds: for what a person wrote, and nobody can make again.
    OSError with the place and the way out where the disk does not allow it; no half of it is left.
    """
    place = path.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        with part.open("wb") as stream:
            stream.write(content)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        rights = _rights(place) if mode is None else mode
        if rights is not None:
            os.chmod(part, rights)
        part.replace(place)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise (disk_error(place, error, len(content)) or error) from error
    return path


def _rights(path: Path) -> int | None:
    """The rights of a file that is there. OSError for what is no file, which would be replaced by one."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    if not (S_ISREG(mode) or S_ISDIR(mode)):  # to write on a folder fails by itself
        raise OSError(errno.EINVAL, "a device or a pipe, which would be replaced", os.fspath(path))
    return mode & 0o7777


def write_json(path: Path, value: Any) -> Path:
    return write_whole(path, json.dumps(value).encode())


def leave_json(path: str, value: Any) -> None:
    """A new file of ct's own, for a process that waits for its name: whole or not at all. Errors are those of
    `write_whole`."""
    folder, name = os.path.split(path)
    part, content = Path(folder, f".{name}.{os.getpid()}"), json.dumps(value).encode()
    try:
        try:
            part.write_bytes(content)
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)
            part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise (disk_error(Path(path), error, len(content)) or error) from error


def sync(path: Path | str) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
