"""Who on this host may read a project: its owner and group, or everybody with `[project] readable = "everybody"`.

The catalog, provenance.jsonl, results and logs hold attributes of patients. A closed folder closes everything in it, so
only the topmost files and folders matter.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ctcore.project import Project

CLOSED = (
    *("catalog.db", "catalog.db-wal", "catalog.db-shm", "provenance.jsonl"),
    *("store", "work", "dagster_home", "set-aside"),
)


def readable_by_others(project: Project) -> list[str]:
    """Paths that everybody may read although ct.toml does not allow it."""
    if project.settings.readable == "everybody":
        return []
    return [path.name for path, mode in _parts(project.root) if mode & stat.S_IRWXO]


def apply_permissions(project: Project) -> None:
    """Set others' rights as ct.toml says: none, or read. Files of other owners stay as they are."""
    for path, mode in _parts(project.root):
        rights = mode & ~stat.S_IRWXO
        if project.settings.readable == "everybody":
            rights |= (mode & (stat.S_IRGRP | stat.S_IXGRP)) >> 3
        if rights != mode:
            with suppress(PermissionError):
                os.chmod(path, rights)


def _parts(root: Path) -> Iterator[tuple[Path, int]]:
    """The existing parts with their modes. For a store on another disk, the target of its link counts."""
    for name in CLOSED:
        with suppress(FileNotFoundError):
            yield root / name, stat.S_IMODE((root / name).stat().st_mode)
