"""The walk through a step folder: all code that a step's function can reach, and all code that runs at loading.

Modules of plain definitions are followed name by name. A module with any other top-level statement counts whole
wherever it is imported, because that statement may change definitions of others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ctcore.code.effects import Note, is_own
from ctcore.code.environment import local_files
from ctcore.code.module import Definition, ImportedName, Module, is_place, module_of, unfollowed_uses
from ctcore.code.sources import Sources

WHOLE_FOLDER = "found by a name that does not stand there: every file of the folder counts"


@dataclass
class Walk:
    """Collects the parts of a step's code: (file relative to the folder, name) → normalized text.

    `whole`: why a file counts whole. `unseen`: places that find code by a computed name. `lost`: names that lead to no
    readable code. `places`: places that ask for a file's own path.
    """

    folder: Path
    sources: Sources
    docs: bool = False
    script: bool = False
    parts: dict[tuple[str, str], str] = field(default_factory=dict)
    libraries: set[str] = field(default_factory=set)
    whole: dict[str, Note] = field(default_factory=dict)
    unseen: list[Note] = field(default_factory=list)
    lost: list[Note] = field(default_factory=list)
    places: list[Note] = field(default_factory=list)
    reads_docs: bool = False
    local: set[str] = field(default_factory=set)
    _loaded: dict[Path, Module] = field(default_factory=dict)
    _named: set[tuple[Path, str]] = field(default_factory=set)
    _begun: set[Path] = field(default_factory=set)
    _taken: set[tuple[Path, str]] = field(default_factory=set)

    @property
    def reaches_all(self) -> bool:
        """Whether it may reach any file of the folder, by a name or a path that does not stand in the code."""
        return bool(self.places or self.unseen)

    def load(self, path: Path) -> Module:
        """Import the module: the code at its top counts, and so do its imports."""
        if path in self._loaded:
            return self._loaded[path]
        module = self._loaded[path] = module_of(self.sources.read(path), str(path), self.docs, self.script)
        self._begun.add(path)
        for one in module.executed:
            if one.level:
                self._targets(path, one)
        for one in module.aside:
            self._add(path, f"import {one.local}", one.text)
            self._library(path, one)
        if module.effects:
            line, what = module.effects[0]
            self.count_whole(path, line, what)
        elif (line := self._made_by_others(path, module)) is not None:
            self.count_whole(path, line, "a class is made by code of its base")
        self._begun.discard(path)
        return module

    def count_whole(self, path: Path, line: int, why: str) -> None:
        """Every statement of the file counts, in its order."""
        module = self.load(path)
        if self._label(path) in self.whole:
            return
        self.whole[self._label(path)] = Note(self._label(path), line, why)
        self._define(path, "", module.whole)

    def follow(self, path: Path, name: str, fields: frozenset[str] = frozenset()) -> None:
        """Follow a name of a module with everything that it uses; for a class of parameters, without the defaults of
        these fields."""
        module = self.load(path)
        if (path, name) in self._taken:  # two files that take a name from each other
            return
        self._taken.add((path, name))
        for one in module.imports(name):
            self._bound(path, one, None)
        self._own(path, name, fields)
        if name not in module.bound and "__getattr__" in module.bound:
            self._own(path, "__getattr__")

    def _own(self, path: Path, name: str, fields: frozenset[str] = frozenset()) -> None:
        """The module's own definition of this name."""
        if (path, name) in self._named:
            return
        self._named.add((path, name))
        module = self.load(path)
        if name in module.bound and self._label(path) not in self.whole:
            found = module.definition(name, fields)
            if found.text:
                self._define(path, name, found)

    def _define(self, path: Path, name: str, found: Definition) -> None:
        self._add(path, name, found.text)
        label = self._label(path)
        self.unseen += [Note(label, line, f"{what}: {WHOLE_FOLDER}") for line, what in found.unseen]
        self.places += [Note(label, line, "asks where it lies") for line in found.places]
        self.reads_docs |= found.reads_docs or any(what.startswith("inspect") for _, what in found.unseen)
        module = self._loaded[path]
        for one in found.imports:
            self._bound(path, one, found)
        for used in sorted({*found.names, *found.attributes}):
            for one in module.imports(used):
                self._bound(path, one, found)
            self._own(path, used)

    def _bound(self, path: Path, one: ImportedName, user: Definition | None) -> None:
        """The target of an import. `user` is the name's use there; None if another module re-exports it."""
        if not one.level:
            self._add(path, f"import {one.local}", one.text)
            self._library(path, one)
            bare = user is None or one.local in user.names
            attributes = user.attributes.get(one.local, frozenset()) if user else frozenset()
            label = self._label(path)
            self.unseen += [
                Note(label, one.line, f"{said}: {WHOLE_FOLDER}") for said in unfollowed_uses(one, bare, attributes)
            ]
            self.places += [Note(label, one.line, "finds files beside it")] if is_place(one) else []
            return
        self._add(path, f"import {one.local}", one.text)
        self.places += [Note(self._label(path), one.line, "asks where a file lies")] if is_place(one) else []
        for target, name in self._targets(path, one):
            if name == "*":
                self.count_whole(target, 0, f"its names are taken by `*` in {self._label(path)}")
            elif name is not None:
                self.follow(target, name)
            elif user is None or one.local in user.names:
                self.count_whole(target, 0, f"it is used as a value in {self._label(path)}")
            else:
                self._attributes(target, user.attributes.get(one.local, frozenset()), path)

    def _attributes(self, target: Path, names: Iterable[str], path: Path) -> None:
        module = self.load(target)
        for name in names:
            if name in module.bound:
                self.follow(target, name)
            elif (inner := self._inner(target, name)) is not None:
                self.count_whole(inner, 0, f"it is reached through its package in {self._label(path)}")
            else:
                self.count_whole(target, 0, f"its {name} is asked for in {self._label(path)}")

    def _targets(self, path: Path, one: ImportedName) -> list[tuple[Path, str | None]]:
        """The files that an import of a sibling leads to, and the name that it takes there; None: the module."""
        base = path.parent
        for _ in range(one.level - 1):
            base = base.parent
        if base != self.folder and self.folder not in base.parents:
            self.lost.append(Note(self._label(path), one.line, f"`{one.text}` leads out of the folder"))
            return []
        for part in one.module.split(".") if one.module else ():
            self._package(base)
            base = base / part
        place = self._file(base)
        if place is not None and place != path:
            module = self.load(place)
            # As Python does: a name that a package binds goes before a module of that name (importlib,
            # _handle_fromlist).
            if one.name == "*" or one.name in module.bound:
                return [(place, one.name)]
        inner = self._inner_of(base, one.name)
        if inner is not None:
            self.load(inner)
            return [(inner, None)]
        if place is None:
            self.lost.append(Note(self._label(path), one.line, f"`{one.text}` leads to no file of Python code"))
            return []
        return [(place, one.name)]

    def _package(self, folder: Path) -> None:
        if folder != self.folder and self.sources.has(folder / "__init__.py"):
            self.load(folder / "__init__.py")

    def _file(self, base: Path) -> Path | None:
        """`pkg/__init__.py` or `name.py`; the step folder itself is a package without code."""
        if base == self.folder:
            return None
        for place in (base / "__init__.py", base.with_name(base.name + ".py")):
            if self.sources.has(place):
                return place
        return None

    def _inner(self, package: Path, name: str) -> Path | None:
        return self._file(package.parent / name) if package.name == "__init__.py" else None

    def _inner_of(self, folder: Path, name: str | None) -> Path | None:
        return self._file(folder / name) if name else None

    def _made_by_others(self, path: Path, module: Module) -> int | None:
        """The line of a class whose base comes from a sibling that counts whole or is still loading: the base may
        run unknown code when the class is created."""
        for line, _, name in module.bases:
            for one in module.imports(name):
                targets = [target for target, _ in self._targets(path, one)] if one.level else []
                if targets and (self.whole or any(target in self._begun for target in targets)):
                    return line
        return None

    def _library(self, path: Path, one: ImportedName) -> None:
        name = one.library or ""
        if is_own(name):
            return
        beside = self._file(self.folder / name)
        if beside is not None and local_files(name) is None:  # a script finds what lies beside it
            self.count_whole(beside, 0, f"it is imported as a module beside {path.name}")
            return
        files = local_files(name)
        if files is None:
            self.libraries.add(name)
        elif name not in self.local:
            self.local.add(name)
            self._local(name, files)

    def _local(self, name: str, files: Mapping[str, Path]) -> None:
        """A module that is in no installed package: all of its files count, and the libraries that they import."""
        self.whole[name] = Note(name, 0, "is not of an installed package")
        for label, place in files.items():
            if place.suffix != ".py":
                self.parts[label, ""] = self.sources.digest(place)
                continue
            found = module_of(self.sources.read(place), str(place), self.docs, self.script).whole
            self.parts[label, ""] = found.text
            self.reads_docs |= found.reads_docs
            for one in found.imports:
                if one.library and one.library != name:
                    self._library(place, one)

    def _add(self, path: Path, name: str, text: str) -> None:
        self.parts[self._label(path), name] = text

    def _label(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()
