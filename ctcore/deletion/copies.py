"""Finds copies of purged content anywhere under the project: in other folders, behind links, packed or renamed."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, select, text

from ctcore.catalog.ownership import set_aside_prefix
from ctcore.catalog.tables import attempt, materialization, purge
from ctcore.catalog.tombstones import current_folders, folders_of
from ctcore.deletion.dagster_storage import Schema
from ctcore.deletion.file_contents import MAYBE, Contents, Takes
from ctcore.deletion.folder_walk import FolderWalk
from ctcore.deletion.leftovers import Leftovers
from ctcore.deletion.purged_digests import PurgedContent, purged_content
from ctcore.intake.raw_places import above
from ctcore.lineage.containment import Containment
from ctcore.project import Project
from ctcore.projects.dagster_home import schema_of
from ctcore.store.digest import try_digests
from ctcore.store.manifest import OWN

_OURS = ("store", "work")
_LIVE = {"provenance.jsonl", "catalog.db", "catalog.db-wal", "catalog.db-shm", "ct.toml"}
_KEY_DIGITS = 16

Kept = Mapping[str, Collection[str]]  # folder of a making, within the store → its files


def command(patient: str, raw: bool = False) -> str:
    """The command that removes it, ready to type."""
    return f"`ct purge {patient}{' --raw' * raw} --reason TEXT --confirm {patient}`"


@dataclass(frozen=True)
class Copy:
    """A file that holds data of a person. `by`: whether a purge, a purge with --raw or the file's owner removes it."""

    path: str
    what: str
    by: Literal["purge", "raw", "dagster", "owner"]
    way: str = "yours to remove"

    def words(self, patient: str) -> str:
        ways = {"purge": f"{command(patient)} removes it", "raw": f"{command(patient, raw=True)} removes it"}
        ways["dagster"] = f"{command(patient)} removes it from Dagster's storage"
        return f"{self.what}, of patient {patient}; {ways.get(self.by, self.way)}"


@dataclass(frozen=True)
class FoundCopies:
    """The copies, each once; `unread`: (path, reason) of what could not be read."""

    copies: list[Copy]
    unread: list[tuple[str, str]]


def unowned_copies(project: Project, connection: Connection, found: Containment, patient: str) -> list[Copy]:
    """Copies outside the known places of makings and leftovers: a purge removes them or names them."""
    copies = search(project, connection, found, patient, found.left).copies
    again = [f"store/{folder}" for folder in folders_of(connection, purge.c.patient == patient)]
    there_again = [Copy(name, "has come back", "purge") for name in again if os.path.lexists(project.root / name)]
    return there_again + not_below(project, copies, named_places(project, connection, found, patient))


def not_below(project: Project, copies: Iterable[Copy], named: Iterable[Path]) -> list[Copy]:
    """The copies outside of the `named` places."""
    within = set(map(os.fspath, named))
    return [one for one in copies if within.isdisjoint(_above(project.root / one.path))]


def named_places(project: Project, connection: Connection, found: Containment, patient: str) -> list[Path]:
    """Files and folders that are known to hold the person's data."""
    gone = folders_of(connection, purge.c.patient == patient)
    return [*Leftovers(project, connection, found).paths(), *(project.store.root / one for one in gone)]


def search(
    project: Project,
    connection: Connection,
    found: Containment,
    patient: str,
    going: Collection[int] = (),
    on_bytes: Callable[[int], None] | None = None,
) -> FoundCopies:
    """Search every file, except files of existing makings, which have digests of their own.

    Files are digested only if their size equals that of purged content. Archives, databases and texts are opened.
    """
    left = Leftovers(project, connection, found)
    looked_for = purged_content(project, connection, found, patient, going)
    return _Search(project, connection, looked_for, current_folders(connection), left.takes).found(on_bytes)


def _above(path: Path) -> Iterator[str]:
    yield os.fspath(path)
    yield from map(os.fspath, path.parents)


def _is_below(path: str, places: Collection[str]) -> bool:
    """Whether a file is one of these places, or lies in one."""
    return path in places or any(one in places for one in above(path))


class _Search:
    def __init__(
        self, project: Project, connection: Connection, wanted: PurgedContent, kept: Kept, takes: Takes
    ) -> None:
        self.project, self.connection, self.wanted = project, connection, wanted
        self.kept, self.contents = kept, Contents(wanted, takes)
        self.root, self.home = os.path.realpath(project.root), os.path.realpath(project.dagster_home)

    def found(self, on_bytes: Callable[[int], None] | None) -> FoundCopies:
        walks = [FolderWalk(self.root, "store", self._skipped)]
        if self.home != self.root and not self.home.startswith(self.root + os.sep) and os.path.isdir(self.home):
            walks.append(FolderWalk(self.home, "", lambda _: ()))  # a DAGSTER_HOME that several projects share
        alike: list[str] = []
        others: list[str] = []
        for walk in walks:
            for name, seen in walk.files():
                place = f"{walk.root}/{name}"
                is_alike = seen.st_size in self.wanted.sizes and seen.st_size > 0  # an empty file proves nothing
                (alike if is_alike else others).append(place)
        digests, problems = try_digests(alike, on_bytes=on_bytes)
        unread = [
            *(one for walk in walks for one in walk.unread),
            *((self._name(path), said) for path, said in problems.items()),
        ]
        listed = [copy for path, read in digests.items() if (copy := self._same_bytes(path, read[0])) is not None]
        known = {os.path.join(self.root, one.path) for one in listed}
        for path in (*alike, *others):
            if path not in known and path not in problems and not _is_below(path, self.wanted.others_raw):
                listed += self._inspect(path, unread)
        listed += () if self.project.catalog.is_sqlite else self._schemas()
        return FoundCopies(sorted(listed, key=lambda one: one.path), sorted(set(unread)))

    def _skipped(self, folder: str) -> Collection[str]:
        """Files that other checks cover: the catalog, its journal, and the files of existing makings."""
        if folder == "":
            return _LIVE
        if folder == "work":
            return ("mirror",)
        files = self.kept.get(folder.removeprefix("store/")) if folder.startswith("store/") else None
        return () if files is None else {*files, *OWN}

    def _schemas(self) -> Iterator[Copy]:
        """Copies in schemas of the same database: old catalogs that recoveries set aside, and Dagster's storage."""
        names = set(self.connection.execute(text("SELECT nspname FROM pg_namespace")).scalars())
        aside = [name for name in sorted(names) if name.startswith(set_aside_prefix(self.project.catalog.schema))]
        for name in (*aside, *({schema_of(self.project)} & names)):
            if said := self.contents.of_schema(Schema(self.connection, name)):
                way = f'yours to remove: DROP SCHEMA "{name}" CASCADE'
                yield Copy(f"schema {name}", "; ".join(said), "owner" if name in aside else "dagster", way)

    def _name(self, path: str) -> str:
        return os.path.relpath(path, self.root)

    def _same_bytes(self, path: str, digest: str) -> Copy | None:
        """The copy, if the digest is of purged content. A raw file where it is registered is no copy, nor one in it."""
        what = self.wanted.description_of(digest)
        is_registered = _is_below(path, self.wanted.raw_paths) or _is_below(os.path.realpath(path), self._real_raw)
        if what is None or (digest in self.wanted.raw and is_registered):
            return None
        if digest in self.wanted.beside and digest not in self.wanted.files and self._is_of_others(path):
            return None
        inside = "raw" if digest in self.wanted.raw else "owner"  # another person's file may have the same bytes
        if _is_below(path, self.wanted.others_raw):  # in another's folder: that purge is not to take it apart
            inside = "owner"
        by = "purge" if self._is_ours(path) else inside if self._lies_inside(path) else "owner"
        return Copy(self._name(path), f"has the bytes of {what}", by)

    @cached_property
    def _real_raw(self) -> Set[str]:
        return set(map(os.path.realpath, self.wanted.raw_paths))

    def _is_of_others(self, path: str) -> bool:
        """Whether the file is the log of somebody else's call or of a Dagster run, which may have the same text."""
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

    def _inspect(self, path: str, unread: list[tuple[str, str]]) -> Iterator[Copy]:
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


def removable_paths(project: Project, found: Sequence[Copy], raw: bool, named: Iterable[Path]) -> list[Path]:
    """Paths of copies that a purge removes, outside of the `named` places. Behind a link, also the target of the
    link."""
    mine = [project.root / one.path for one in found if one.by == "purge" or (raw and one.by == "raw")]
    within = set(map(os.fspath, named))
    apart = [path for path in mine if within.isdisjoint(_above(path))]
    real = [Path(os.path.realpath(path)) for path in mine]
    behind = [place for place in real if within.isdisjoint(_above(place))]
    return list(dict.fromkeys([*behind, *apart]))
