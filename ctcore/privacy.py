"""Who on this host may read a project: its owner and group, unless `[project] readable` says everybody.

Attributes of patients are in the catalog, in provenance.jsonl, in results and in logs. What is inside a closed folder
is closed too, so only the topmost files and folders count.
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
    """What everybody may read although ct.toml does not say so."""
    if project.settings.readable == "everybody":
        return []
    return [path.name for path, mode in _parts(project.root) if mode & stat.S_IRWXO]


def settle(project: Project) -> None:
    """Give everybody else the rights that ct.toml says: none, or to read. What is not ours stays as it is."""
    for path, mode in _parts(project.root):
        rights = mode & ~stat.S_IRWXO
        if project.settings.readable == "everybody":
            rights |= (mode & (stat.S_IRGRP | stat.S_IXGRP)) >> 3
        if rights != mode:
            with suppress(PermissionError):
                os.chmod(path, rights)


def _parts(root: Path) -> Iterator[tuple[Path, int]]:
    """Those that are there, with their modes; a store on another disk is what its link leads to."""
    for name in CLOSED:
        with suppress(FileNotFoundError):
            yield root / name, stat.S_IMODE((root / name).stat().st_mode)
