"""⑦ Files that are seen whole or not at all, whoever is killed while they are written."""

import json
import os
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> Path:
    """Write a file beside its place, and put it there by one renaming. A folder that is missing is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(content)
        if mode != 0o644:
            os.chmod(part, mode)
        part.replace(path)
    except OSError:  # a full disk keeps no half of it
        part.unlink(missing_ok=True)
        raise
    return path


def write_json(path: Path, value: Any) -> Path:
    return write_whole(path, json.dumps(value).encode())
