"""⑥ Every file below a folder, also behind links: each folder once, so that what leads in a circle comes to an end."""

import os
from collections.abc import Callable, Collection, Iterator
from stat import S_ISDIR, S_ISREG

BEHIND = 1_000_000  # files and folders outside of the project that are looked at
_SYSTEM = ("/proc/", "/sys/")

Skips = Callable[[str], Collection[str]]


class Walk:
    """Below `root`, `first` of its folders before the others. `skips` says which names of a folder are not looked at;
    both are paths within the root, with / between names. What could not be looked at is in `unread` afterwards.
    """

    def __init__(self, root: str, first: str, skips: Skips) -> None:
        self.root, self.first, self.skips = root, first, skips
        self.unread: list[tuple[str, str]] = []
        self._seen: set[tuple[int, int]] = set()
        self._behind = 0

    def files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Regular files, each with what the system says of it; of a link, of what it leads to."""
        waiting = ["", self.first]
        while waiting:
            folder = waiting.pop()
            place = os.path.join(self.root, folder)
            if not self._is_new(folder, place):
                continue
            try:
                with os.scandir(place) as entries:
                    listed = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self._failed(folder, error)
                continue
            skipped = self.skips(folder)
            for entry in listed:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.name not in skipped:
                    yield from self._looked(name, entry, waiting)

    def _looked(self, name: str, entry: os.DirEntry[str], waiting: list[str]) -> Iterator[tuple[str, os.stat_result]]:
        try:
            seen = entry.stat()
        except FileNotFoundError:
            if entry.is_symlink() and name.startswith(f"{self.first}/"):
                self.unread.append((name, f"leads to {os.readlink(entry.path)}, which is not there"))
            return
        except OSError as error:
            self._failed(name, error)
            return
        if S_ISDIR(seen.st_mode):
            waiting.append(name)
        elif S_ISREG(seen.st_mode):
            yield name, seen

    def _is_new(self, folder: str, place: str) -> bool:
        """Whether it was not looked at yet, and may be: what links lead to is not the whole machine."""
        try:
            seen = os.stat(place)
        except OSError as error:
            if folder != self.first:
                self._failed(folder, error)
            return False
        if (seen.st_dev, seen.st_ino) in self._seen:
            return False
        self._seen.add((seen.st_dev, seen.st_ino))
        real = os.path.realpath(place)
        if real == self.root or real.startswith(self.root + os.sep):
            return True
        self._behind += 1
        if f"{real}/".startswith(_SYSTEM) or self._behind > BEHIND:
            if self._behind == BEHIND + 1:
                self.unread.append((folder, f"more than {BEHIND:,} folders lie behind links; the others were left"))
            return False
        return True

    def _failed(self, name: str, error: OSError) -> None:
        self.unread.append((name or ".", error.strerror or str(error)))
