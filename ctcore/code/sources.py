"""The files of step folders as read: the bytes that run are the bytes that count as code."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ctcore.errors import StepError
from ctcore.store.digest import digest_files


@dataclass
class Sources:
    """Each file is read once. A new one for each time that steps are loaded."""

    _read: dict[Path, bytes] = field(default_factory=dict)
    _there: dict[Path, frozenset[str]] = field(default_factory=dict)

    def read(self, path: Path) -> bytes:
        """The bytes of a source file; StepError where it cannot be read, or is none."""
        if path not in self._read:
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
        folder = path.parent
        if folder not in self._there:
            try:
                self._there[folder] = frozenset(os.listdir(folder))
            except OSError:
                self._there[folder] = frozenset()
        return path.name in self._there[folder] and path.is_file()

    def digest(self, path: Path) -> str:
        """The digest of a file that is no Python."""
        return digest_files([path])[path]


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
