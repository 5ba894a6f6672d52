"""Raw files that a sheet names: whether each exists, and its identity on disk."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from ctcore.store.digest import Signature
from ctcore.store.folder_content import members_of, signature_at

_GZIP = b"\x1f\x8b"
IS_FOLDER, IS_FILE = "is a folder", "is a file"

Place = tuple[int, int]  # device and inode: one file, however it is called
InspectedFile = tuple[str | None, Place, Signature]  # what is wrong with a file (None: nothing), where and how it is


@dataclass(slots=True)
class FileClaim:
    """A raw file that the sheet names: its absolute path, how it was found, and the checksums that are stated for it.

    A folder has none itself; its files may.

    `listed` says where a list of checksums states one, by algorithm. The path is kept as text: of 100,000 files, as
    `Path` objects, it would cost as much as all other checks.
    """

    name: str
    seen: Signature
    checksums: dict[str, str] = field(default_factory=dict)
    listed: dict[str, str] = field(default_factory=dict)
    members: list["FileClaim"] | None = None  # of a folder, its files; looked up only where a list may state them

    @property
    def path(self) -> Path:
        return Path(self.name)


def inspect_folder(path: str) -> InspectedFile:
    """The same of a folder, and of all that is in it."""
    place, seen = (0, 0), Signature(0, 0, 0, 0)
    try:
        stat = os.stat(path)
        place = (stat.st_dev, stat.st_ino)
        if not S_ISDIR(stat.st_mode):
            return IS_FILE, place, seen
        seen = signature_at(path)
    except FileNotFoundError:
        return "is not there; correct the path (relative to the sheet) or put the folder there", place, seen
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        return f"cannot be taken: {said}", place, seen
    return None if seen.size else "is empty (0 bytes); put the real files there", place, seen


def files_in(path: str) -> list[FileClaim]:
    """Each file in a folder, links followed."""
    try:
        members = members_of(path)
    except OSError:  # it changed since it was inspected, and reading it says so
        return []
    found = ((os.path.join(path, os.fsdecode(one.name)), one.seen) for one in members)
    return [FileClaim(name, seen) for name, seen in found if seen is not None]


def inspect_file(path: str) -> InspectedFile:
    """The problem of a file, if any, and its identity on disk, the same under every name."""
    place, seen = (0, 0), Signature(0, 0, 0, 0)
    try:
        stat = os.stat(path)
        place, seen = (stat.st_dev, stat.st_ino), Signature.from_stat(stat)
        if not S_ISREG(stat.st_mode):
            return IS_FOLDER if S_ISDIR(stat.st_mode) else "is not a file; name the file itself", place, seen
        if stat.st_size == 0:
            return "is empty (0 bytes); put the real file there", place, seen
        if not _opens_as_named(path):
            return "is named .gz, but is not gzip; compress it or rename it", place, seen
    except FileNotFoundError:
        return "is not there; correct the path (relative to the sheet) or put the file there", place, seen
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        return f"cannot be read: {said}; allow reading it", place, seen
    return None, place, seen


def _opens_as_named(path: str) -> bool:
    """Whether a file that is named .gz is gzip; OSError where it may not be read."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return not path.endswith(".gz") or os.read(fd, 2) == _GZIP
    finally:
        os.close(fd)
