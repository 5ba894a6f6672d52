"""⑥ What was purged, wherever it lies under the project: in unknown folders, behind links, packed, renamed."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, select

from ctcore.catalog.tables import attempt, materialization, purge
from ctcore.digest import try_digests
from ctcore.manifest import OWN
from ctcore.project import Project
from ctcore.purging.contents import MAYBE, Contents, Takes
from ctcore.purging.inside import Inside
from ctcore.purging.leftovers import Leftovers
from ctcore.purging.walk import Walk
from ctcore.purging.wanted import Wanted, wanted
from ctcore.tombstones import folders_of, there

_OURS = ("store", "work")
_LIVE = {"provenance.jsonl", "catalog.db", "catalog.db-wal", "catalog.db-shm", "ct.toml"}
_KEY_DIGITS = 16

Kept = Mapping[str, Collection[str]]  # folder of a making, within the store → its files


@dataclass(frozen=True)
class Copy:
    """A file that has something of a person, and who removes it: a purge, one with --raw, or its owner."""

    path: str
    what: str
    by: Literal["purge", "raw", "dagster", "owner"]

    def words(self, patient: str) -> str:
        ways = {"purge": f"`ct purge {patient}` removes it", "raw": f"`ct purge {patient} --raw` removes it"}
        ways["dagster"] = f"`ct purge {patient}` takes it out"
        return f"{self.what}, of patient {patient}; {ways.get(self.by, 'yours to remove')}"


@dataclass(frozen=True)
class Found:
    """Copies, each once; and what could not be read, with why."""

    copies: list[Copy]
    unread: list[tuple[str, str]]


def lying(project: Project, connection: Connection, found: Inside, patient: str) -> list[Copy]:
    """All that lies in places of which no making and no leftover tells, and goes with a purge or is named by it."""
    copies = search(project, connection, found, patient, found.left).copies
    again = [f"store/{folder}" for folder in folders_of(connection, purge.c.patient == patient)]
    there_again = [Copy(name, "is there again", "purge") for name in again if os.path.lexists(project.root / name)]
    return there_again + apart(project, copies, named_places(project, connection, found, patient))


def apart(project: Project, copies: Iterable[Copy], named: Iterable[Path]) -> list[Copy]:
    """Those that do not lie in a place that is named already."""
    within = set(map(os.fspath, named))
    return [one for one in copies if within.isdisjoint(_above(project.root / one.path))]


def named_places(project: Project, connection: Connection, found: Inside, patient: str) -> list[Path]:
    """Files and folders that are known to be the person's."""
    gone = folders_of(connection, purge.c.patient == patient)
    return [*Leftovers(project, connection, found).paths(), *(project.store.root / one for one in gone)]


def search(
    project: Project,
    connection: Connection,
    found: Inside,
    patient: str,
    going: Collection[int] = (),
    on_bytes: Callable[[int], None] | None = None,
) -> Found:
    """Look at every file but those of makings that are there: they are read against their own digests.

    Only files of a size that is known are digested; into archives, databases and texts it is looked.
    """
    left = Leftovers(project, connection, found)
    looked_for = wanted(project, connection, found, patient, going)
    return _Search(project, connection, looked_for, there(connection), left.takes).found(on_bytes)


def _above(path: Path) -> Iterator[str]:
    yield os.fspath(path)
    yield from map(os.fspath, path.parents)


class _Search:
    def __init__(self, project: Project, connection: Connection, wanted: Wanted, kept: Kept, takes: Takes) -> None:
        self.project, self.connection, self.wanted = project, connection, wanted
        self.kept, self.contents = kept, Contents(wanted, takes)
        self.root, self.home = os.path.realpath(project.root), os.path.realpath(project.dagster_home)

    def found(self, on_bytes: Callable[[int], None] | None) -> Found:
        walks = [Walk(self.root, "store", self._skipped)]
        if self.home != self.root and not self.home.startswith(self.root + os.sep) and os.path.isdir(self.home):
            walks.append(Walk(self.home, "", lambda _: ()))  # that of several projects
        alike: list[str] = []
        others: list[str] = []
        for walk in walks:
            for name, seen in walk.files():
                place = f"{walk.root}/{name}"
                is_alike = seen.st_size in self.wanted.sizes and seen.st_size > 0  # an empty file tells nothing
                (alike if is_alike else others).append(place)
        digests, problems = try_digests(alike, on_bytes=on_bytes)
        unread = [
            *(one for walk in walks for one in walk.unread),
            *((self._name(path), said) for path, said in problems.items()),
        ]
        listed = [copy for path, read in digests.items() if (copy := self._same(path, read[0])) is not None]
        known = {os.path.join(self.root, one.path) for one in listed}
        for path in (*alike, *others):
            if path not in known and path not in problems and path not in self.wanted.others_raw:
                listed += self._looked(path, unread)
        return Found(sorted(listed, key=lambda one: one.path), sorted(set(unread)))

    def _skipped(self, folder: str) -> Collection[str]:
        """What is checked otherwise: the catalog, its journal, and files of makings that are there."""
        if folder == "":
            return _LIVE
        if folder == "work":
            return ("mirror",)
        files = self.kept.get(folder.removeprefix("store/")) if folder.startswith("store/") else None
        return () if files is None else {*files, *OWN}

    def _name(self, path: str) -> str:
        return os.path.relpath(path, self.root)

    def _same(self, path: str, digest: str) -> Copy | None:
        """A file with the bytes of what was purged; in a place in which it may be, it is none."""
        what = self.wanted.what(digest)
        if what is None or (digest in self.wanted.raw and path in self.wanted.raw_paths):
            return None
        if digest in self.wanted.beside and digest not in self.wanted.files and self._is_of_others(path):
            return None
        inside = "raw" if digest in self.wanted.raw else "owner"  # what has the same bytes may be another's own
        by = "purge" if self._is_ours(path) else inside if self._lies_inside(path) else "owner"
        return Copy(self._name(path), f"has the bytes of {what}", by)

    def _is_of_others(self, path: str) -> bool:
        """A log of a call of somebody else, or what a run of Dagster printed: it may say the same."""
        top, *rest = self._name(path).split("/")
        if path.startswith(os.path.join(self.home, "")):
            return True
        if top != "work" or len(rest) != 4 or rest[0] != "logs" or rest[2] in self.wanted.ids:
            return False
        keys = set[str]()
        for table in (materialization, attempt):
            mine = (table.c.asset == rest[1]) & (table.c.partition == rest[2])
            keys |= set(self.connection.execute(select(table.c.key).where(mine)).scalars())
        return any(rest[3].startswith(key[:_KEY_DIGITS]) for key in keys)

    def _looked(self, path: str, unread: list[tuple[str, str]]) -> Iterator[Copy]:
        try:
            said = self.contents.of(path)
        except FileNotFoundError:
            return
        except OSError as error:
            unread.append((self._name(path), error.strerror or str(error)))
            return
        if said:
            is_dagsters = path.startswith(os.path.join(self.home, ""))
            ours = self._is_ours(path) and said != [MAYBE]
            by = "purge" if ours else "dagster" if is_dagsters else "owner"
            yield Copy(self._name(path), "; ".join(said), by)

    def _is_ours(self, path: str) -> bool:
        return self._name(path).split("/")[0] in _OURS

    def _lies_inside(self, path: str) -> bool:
        return os.path.realpath(path).startswith(self.root + os.sep)


def removed(project: Project, found: Sequence[Copy], raw: bool, named: Iterable[Path]) -> list[Path]:
    """What a purge removes of them, beside what goes with the places that are `named`. Where one lies behind a link,
    what that leads to goes too."""
    mine = [project.root / one.path for one in found if one.by == "purge" or (raw and one.by == "raw")]
    within = set(map(os.fspath, named))
    apart = [path for path in mine if within.isdisjoint(_above(path))]
    real = [Path(os.path.realpath(path)) for path in mine]
    behind = [place for place in real if within.isdisjoint(_above(place))]
    return list(dict.fromkeys([*behind, *apart]))
