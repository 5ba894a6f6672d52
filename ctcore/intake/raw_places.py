"""Where a raw file that is a folder may not lie: each file is given once, so nobody else's raw file is in it or around
it, no reference is in it, and ct writes nothing there."""

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import NamedTuple

from sqlalchemy import Connection, select

from ctcore.catalog.tables import entity, file
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.node import Node
from ctcore.model.schema import folder_roles
from ctcore.project import Project
from ctcore.store.digest import Signature
from ctcore.store.folder_content import signature_at


def above(path: str) -> Iterator[str]:
    """All folders that a place lies in."""
    while (up := os.path.dirname(path)) != path:
        yield up
        path = up


def names_of(path: str) -> set[str]:
    """A place as it is written, and where it really is."""
    return {os.path.abspath(path), os.path.realpath(path)}


def registered_around(project: Project, connection: Connection, path: Path | str) -> list[str]:
    """The recorded paths of raw files that a place is, or lies in."""
    places = {one for name in names_of(os.fspath(path)) for one in (name, *above(name))}
    mine = select(file.c.path).where(file.c.path.in_([project.recorded(one) for one in places]))
    return list(connection.execute(mine).scalars())


def registered_inside(project: Project, connection: Connection, path: Path | str) -> list[str]:
    """The recorded paths of raw files that lie in a folder."""
    found: list[str] = []
    for name in names_of(os.fspath(path)):
        beginning = project.recorded(os.path.join(name, ""))
        # The project itself: whatever is recorded by a relative path lies in it.
        inside = file.c.path.startswith(beginning, autoescape=True) if beginning else ~file.c.path.startswith("/")
        found += connection.execute(select(file.c.path).where(inside)).scalars()
    return found


class RawFile(NamedTuple):
    """Whose a raw file is, and where."""

    owner: Node
    role: str
    path: str
    is_folder: bool


class RawPlaces:
    """Raw files of a sheet and of the catalog, references and ct's own folders, by where they really are."""

    def __init__(self, project: Project, files: Iterable[RawFile]) -> None:
        self.root, self.own = os.path.realpath(project.root), list(map(os.path.realpath, project.own_folders))
        declared = project.settings.references
        self.references = [(key, declared[key].folder, os.path.realpath(path)) for key, path in project.references()]
        self._at: dict[str, list[RawFile]] = {}
        self._real_folders: dict[str, str] = {}
        for one in files:
            self._at.setdefault(self._real(one.path), []).append(one)

    def problem(self, mine: RawFile) -> str | None:
        """What is wrong with the place of a folder, but for other raw files; None: nothing."""
        real = self._real(mine.path) if mine.is_folder else ""
        for own in (self.root, *self.own) if real else ():
            if own == real or own.startswith(os.path.join(real, "")):
                return f"contains {own}, where ct writes; name a folder of its own"
            if own != self.root and real.startswith(os.path.join(own, "")):
                return f"lies in {own}, where only ct writes; name a place elsewhere"
        for key, is_folder, there in self.references if real else ():
            if there == real or there.startswith(os.path.join(real, "")):
                return f"contains the reference {key}; name a folder of its own"
            if is_folder and real.startswith(os.path.join(there, "")):
                return f"lies in the reference {key}; name a place elsewhere"
        return None

    def other(self, mine: RawFile) -> RawFile | None:
        """Another's raw file that has a file in common with this one, under another path."""
        place = self._real(mine.path)
        near = [one for at in (place, *above(place)) for one in self._at.get(at, ()) if one.is_folder or at == place]
        if mine.is_folder:
            beginning = os.path.join(place, "")
            for at in range(bisect_left(self._sorted, beginning), len(self._sorted)):
                if not self._sorted[at].startswith(beginning):
                    break
                near += self._at[self._sorted[at]]
        return next((one for one in near if one[:2] != mine[:2] and one.path != mine.path), None)

    def _real(self, path: str) -> str:
        """Many files lie in few folders: each of those is looked up once."""
        if os.path.islink(path):
            return os.path.realpath(path)
        folder, name = os.path.split(path)
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(folder)
        return os.path.join(self._real_folders[folder], name)

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self._at)


class InsideProblem(str):
    """Words about something in a folder. They are shown and not kept: names of files may name people."""

    kept = "has something in it that is no content or cannot be read; `ct verify` names it"


class RawKinds:
    """Which raw files are folders, as ct.toml declares them."""

    def __init__(self, project: Project) -> None:
        levels = project.settings.levels
        self.folders = folder_roles(levels)
        self.files = frozenset(role for level in ENTITY_LEVELS for role in levels[level].files)

    @property
    def roles(self) -> frozenset[str]:
        return self.files | self.folders

    def is_folder(self, role: str, place: str) -> bool:
        """Whether what lies there is taken as a folder."""
        return role in self.folders or (role not in self.files and os.path.isdir(place))

    def signature(self, role: str, place: str, stat: os.stat_result) -> Signature | str:
        """That of a file, or of all that is in a folder; or what is wrong with it. What ct.toml does not declare any
        more is what lies there."""
        is_folder = S_ISDIR(stat.st_mode)
        if is_folder and role not in self.files:
            try:
                return signature_at(place)
            except OSError as error:
                return InsideProblem(error.strerror or error)
        if is_folder or role in self.folders:
            return "not a regular file, but a folder" if is_folder else "not a folder, but a file"
        return Signature.from_stat(stat) if S_ISREG(stat.st_mode) else "not a regular file"


class RegisteredPlaces:
    """Where all raw files of the catalog are."""

    def __init__(self, project: Project, kinds: RawKinds | None = None) -> None:
        kinds = kinds or RawKinds(project)
        with project.catalog.read() as connection:
            joined = select(entity.c.level, entity.c.id, file.c.role, file.c.path).join(file)
            rows = connection.execute(joined).all()
        files = [
            RawFile((level, who), role, place := project.located(path), kinds.is_folder(role, place))
            for level, who, role, path in rows
        ]
        self.by_place = {one.path: one for one in files}
        self.places = RawPlaces(project, files)

    def wrong(self, place: str) -> str | None:
        """What is wrong with where a registered folder lies; None: nothing."""
        mine = self.by_place[place]
        if (problem := self.places.problem(mine)) is not None:
            return problem
        other = self.places.other(mine)
        # Without the other's name: the words are kept, and shown beside this one's.
        return other and "has files that are in another raw file, too"
