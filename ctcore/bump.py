"""② Declaring a reference, or another version of one: ct.toml first, then the record.

After a crash in between, the same command or the next look at the references writes the record.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ctcore import tomledit
from ctcore.digest import OnBytes, digest_remembered
from ctcore.errors import InputError, Usage
from ctcore.files import Memory, region_problems
from ctcore.foresight import Consequence, consequences
from ctcore.nodes import no_such
from ctcore.project import Project
from ctcore.references import Seen, known, record, seen_of
from ctcore.settings import FILE_NAME, Reference


@dataclass(frozen=True)
class Bump:
    """What would be declared, and what was looked at for it: the reference, and the regions on it.

    A region with `problems` is left as it is known; the next look names them again.
    """

    project: Project
    declared: Reference
    seen: tuple[Seen, ...]
    before: str | None
    problems: tuple[str, ...] = ()
    is_new: bool = False

    @property
    def after(self) -> str:
        return f"{self.seen[0].version} {self.seen[0].digest}"

    @property
    def values(self) -> dict[str, str]:
        """What is written into the reference's table."""
        kind = {"kind": self.declared.kind} if self.is_new and self.declared.kind != "other" else {}
        return {"path": self.declared.path, "version": self.declared.version, **kind}

    def consequences(self) -> list[Consequence]:
        """What would be stale by it. Nothing is written."""
        return consequences(self.project, lambda writer: record(writer, self.seen))

    def write(self, why: str | None) -> list[str]:
        """Into ct.toml, in place, then into the catalog. Returns in words what changed."""
        path = self.project.root / FILE_NAME
        with self.project.catalog.write() as writer:
            text, encoding = tomledit.read_whole(path)
            change = tomledit.added if self.is_new else tomledit.changed
            edited = change(text, ("references", self.declared.key), self.values)
            if edited != text:
                tomledit.write_whole(path, edited, encoding)
            return record(writer, self.seen, why)


def bump(project: Project, key: str, path: Path, version: str, on_bytes: OnBytes | None = None) -> Bump:
    """Another version of a reference that is declared."""
    old = project.settings.references.get(key)
    if old is None:
        raise no_such(project, "reference", key, "`ct reference add` declares one")
    if old.kind == "region":
        raise Usage(f"{key} is a region: its content is its version; change [regions.{key}] in {FILE_NAME}")
    found = _looked(project, replace(old, path=_recorded(project, path), version=_checked(version)), on_bytes)
    if found.declared == old and found.before == found.after:
        raise Usage(f"{key} is version {version} with this content already; nothing was written")
    return found


def add(project: Project, key: str, path: Path, version: str, kind: str, on_bytes: OnBytes | None = None) -> Bump:
    """A reference that is not declared yet."""
    told = Reference(key, _recorded(project, path), _checked(version), kind)
    old = project.settings.references.get(key)
    if old is not None and old != told:
        raise Usage(f"{key} is declared already; `ct reference bump {key} PATH --version …` gives it another version")
    found = _looked(project, told, on_bytes)
    if old is not None and found.before == found.after:
        raise Usage(f"{key} is declared already, with this content; nothing was written")
    return replace(found, is_new=old is None)


def _checked(version: str) -> str:
    if not version.strip() or version != version.strip() or not version.isprintable():
        raise Usage(f"--version {version!r}: a text without blanks around it is expected")
    return version


def _recorded(project: Project, path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path} is {'no file' if path.exists() else 'not there'}; name the reference's file")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; put the real file there")
    return project.recorded(path)


def _looked(project: Project, told: Reference, on_bytes: OnBytes | None) -> Bump:
    """Look at the reference and at the regions on it."""
    declared: Mapping[str, Reference] = {**project.settings.references, told.key: told}
    places = {key: project.root / one.path for key, one in declared.items() if told.key in (key, one.on)}
    there = {key: path for key, path in places.items() if path.is_file()}
    digests = digest_remembered(list(there.values()), Memory(project), on_bytes=on_bytes)
    wrong = {key: region_problems(project.root, declared, declared[key]) for key in there}
    contents = {key: (digests[path][0], digests[path][1].size) for key, path in there.items() if not wrong[key]}
    with project.catalog.read() as connection:
        rows = known(connection)
    seen = seen_of(declared, contents, rows)
    old = rows.get(told.key)
    before = f"{old.version} {old.digest}" if old is not None else None
    return Bump(project, told, tuple(seen), before, tuple(said for some in wrong.values() for said in some))
