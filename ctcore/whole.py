"""⑦ Files that are seen whole or not at all, whoever is killed while they are written."""

import json
import os
from pathlib import Path
from typing import Any

from ctcore.places import said_of


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> Path:
    """Write a file beside its place, and put it there by one renaming. A folder that is missing is made.

    OSError with the place and the way out where the disk does not allow it; no half of it is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(content)
        if mode != 0o644:
            os.chmod(part, mode)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise (said_of(path, error, len(content)) or error) from error
    return path


def write_json(path: Path, value: Any) -> Path:
    return write_whole(path, json.dumps(value).encode())


def sync(path: Path | str) -> None:
    """Wait until a file, or what a folder says of its entries, is on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
