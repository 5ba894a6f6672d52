"""The files of step folders as read: the bytes that run are the bytes that count as code."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ctcore.errors import StepError
from ctcore.store.digest import Signature, digest_files


class SeenFiles:
    """The signatures of files from before they were read. A file that is as it was then needs no second reading."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[Signature | None, int]] = {}

    def look(self, path: Path) -> None:
        """To be called before the file is read."""
        self._seen.setdefault(path, (_signature(path), time.time_ns()))

    def is_unchanged(self) -> bool:
        """No for a file that was too young: one written within the same tick of the clock has the same signature."""
        return all(
            known is not None and known.settled(began) and known == _signature(path)
            for path, (known, began) in self._seen.items()
        )


def _signature(path: Path) -> Signature | None:
    try:
        return Signature.of(path)
    except OSError:
        return None


@dataclass
class Sources:
    """Each file is read once. A new one for each time that steps are loaded."""

    _read: dict[Path, bytes] = field(default_factory=dict)
    _there: dict[Path, frozenset[str]] = field(default_factory=dict)
    _seen: SeenFiles = field(default_factory=SeenFiles)
    _is_all_known: bool = True

    def read(self, path: Path) -> bytes:
        """The bytes of a source file; StepError where it cannot be read, or is none."""
        if path not in self._read:
            self._seen.look(path)
            try:
                source = path.read_bytes()
            except OSError as error:
                raise StepError(f"{path} cannot be read: {error.strerror}") from error
            if (at := source.find(b"\0")) >= 0:  # some Pythons call it a syntax error, some do not say where it is
                line = source.count(b"\n", 0, at) + 1
                raise StepError(f"{path} line {line}: source code cannot contain null bytes")
            self._read[path] = source
        return self._read[path]

    def has(self, path: Path) -> bool:
        """Whether there is such a file. Folders are listed once."""
        return path.name in self.names(path.parent) and path.is_file()

    def names(self, folder: Path) -> frozenset[str]:
        """What is in a folder; nothing where there is none."""
        if folder not in self._there:
            self._there[folder] = _names(folder)
        return self._there[folder]

    def digest(self, path: Path) -> str:
        """The digest of a file that is no Python."""
        self._seen.look(path)
        return digest_files([path])[path]

    def note_others(self) -> None:
        """Code depends on files that were not read or looked for here."""
        self._is_all_known = False

    def is_as_read(self) -> bool:
        """Whether the same would be read now. No, where that cannot be told by signatures and names."""
        return (
            self._is_all_known
            and self._seen.is_unchanged()
            and all(_names(folder) == names for folder, names in self._there.items())
        )


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def files_below(folder: Path) -> Iterator[Path]:
    """The files of a folder and those below it, in order, also through links; none of hidden folders, no bytecode."""
    # With `followlinks`, os.walk keeps no account of where it was: a link to a folder above would lead round for ever.
    been: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        if real in been:
            folders.clear()
            continue
        been.add(real)
        yield from (Path(place, name) for name in sorted(names))
