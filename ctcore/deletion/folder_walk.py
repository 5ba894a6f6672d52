"""Lists every file below a folder, also behind links. It visits each folder once, so circular links end."""

import os
from collections.abc import Callable, Collection, Iterator
from stat import S_ISDIR, S_ISREG

BEHIND = 1_000_000  # most folders outside of the project that a walk visits
# Their files are made when they are read; some wait for ever, and none is a copy.
_SYSTEM = ("/proc/", "/sys/")

Skips = Callable[[str], Collection[str]]


class FolderWalk:
    """A walk below `root` that visits the folder `first` before the others. `skips(folder)`: names to skip there. Both
    are paths within the root, with / between names. `unread` collects (path, reason) of what could not be read.
    """

    def __init__(self, root: str, first: str, skips: Skips) -> None:
        self.root, self.first, self.skips = root, first, skips
        self.unread: list[tuple[str, str]] = []
        self._seen: set[tuple[int, int]] = set()
        self._behind = 0

    def files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Regular files, each with its stat result; for a link, that of its target."""
        waiting = [(name, False) for name in ("", self.first) if os.path.isdir(os.path.join(self.root, name))]
        while waiting:
            folder, behind = waiting.pop()
            place = f"{self.root}/{folder}" if folder else self.root
            try:
                if not self._is_new(folder, os.stat(place), behind):
                    continue
                with os.scandir(place) as entries:
                    listed = sorted(entries, key=_by_name)
            except OSError as error:
                self._failed(folder, error)
                continue
            skipped = self.skips(folder)
            for entry in listed:
                if entry.name not in skipped:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    yield from self._visit(name, entry, behind, waiting)

    def _visit(
        self, name: str, entry: os.DirEntry[str], behind: bool, waiting: list[tuple[str, bool]]
    ) -> Iterator[tuple[str, os.stat_result]]:
        try:
            if entry.is_dir(follow_symlinks=False):
                waiting.append((name, behind))
                return
            seen = entry.stat()
        except FileNotFoundError:
            if entry.is_symlink() and name.startswith(f"{self.first}/"):
                self.unread.append((name, f"is a link to {os.readlink(entry.path)}, which is missing"))
            return
        except OSError as error:
            self._failed(name, error)
            return
        if S_ISREG(seen.st_mode):
            yield name, seen
        elif S_ISDIR(seen.st_mode):  # a link
            real = f"{os.path.realpath(entry.path)}/"
            if not real.startswith(_SYSTEM):
                waiting.append((name, not real.startswith(f"{self.root}/")))

    def _is_new(self, folder: str, seen: os.stat_result, behind: bool) -> bool:
        """Whether the folder is new and within the limit `BEHIND`, so that links cannot lead over the whole machine."""
        # A folder is its device and inode, by however many links one gets to it.
        if (seen.st_dev, seen.st_ino) in self._seen:
            return False
        self._seen.add((seen.st_dev, seen.st_ino))
        self._behind += behind
        if behind and self._behind == BEHIND + 1:
            self.unread.append((folder, f"more than {BEHIND:,} folders lie behind links; ct did not search the others"))
        return not behind or self._behind <= BEHIND

    def _failed(self, name: str, error: OSError) -> None:
        self.unread.append((name or ".", error.strerror or str(error)))


def _by_name(entry: os.DirEntry[str]) -> str:
    return entry.name
