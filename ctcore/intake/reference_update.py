"""Declaring a reference, or another version of one: ct.toml first, then the record.

After a crash in between, the same command or the next look at the references writes the record.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ctcore.config import edit
from ctcore.config.settings import FILE_NAME, Reference
from ctcore.errors import InputError, Usage
from ctcore.governance.hints import not_found
from ctcore.intake.raw_files import Memory, is_there, keep_members, region_problems
from ctcore.intake.reference_places import misplaced
from ctcore.intake.references import ReferenceContent, content_of, known_references, record
from ctcore.project import Project
from ctcore.staleness.preview import Consequence, consequences
from ctcore.store.digest import OnBytes, Signature
from ctcore.store.folder_content import differing_members, signature_at, try_seen_contents
from ctcore.util.atomic_file import write_whole


@dataclass(frozen=True)
class Bump:
    """The new declaration, and the files behind it: the reference and the regions on it.

    A region with `problems` stays as it is known; the next look reports them again.
    """

    project: Project
    declared: Reference
    seen: tuple[ReferenceContent, ...]
    before: str | None
    problems: tuple[str, ...] = ()
    is_new: bool = False

    @property
    def after(self) -> str:
        return f"{self.seen[0].version} {self.seen[0].digest}"

    @property
    def values(self) -> dict[str, str | bool]:
        """The values for the reference's table."""
        kind = {"kind": self.declared.kind} if self.is_new and self.declared.kind != "other" else {}
        folder = {"folder": True} if self.is_new and self.declared.folder else {}
        return {"path": self.declared.path, "version": self.declared.version, **kind, **folder}

    def consequences(self) -> list[Consequence]:
        """The nodes that it would make stale. Nothing is written."""
        return consequences(self.project, lambda writer: record(writer, self.seen))

    def write(self, why: str | None) -> list[str]:
        """Write it into ct.toml, in place, then into the catalog. Returns the changes as text."""
        path = self.project.root / FILE_NAME
        # The file inside the transaction: while another process writes, or where the catalog refuses, ct.toml stays as
        # it is.
        with self.project.catalog.write() as writer:
            text, encoding = edit.read_whole(path)
            change = edit.add_table if self.is_new else edit.change_table
            edited = change(text, ("references", self.declared.key), self.values)
            if edited != text:
                write_whole(path, edited.encode(encoding), durable=True)
            return record(writer, self.seen, why, partial(differing_members, self.project.store.root))


def bump(project: Project, key: str, path: Path, version: str, on_bytes: OnBytes | None = None) -> Bump:
    """Another version of a reference that is declared."""
    old = project.settings.references.get(key)
    if old is None:
        raise not_found(project, "reference", key, "`ct reference add` declares one")
    if old.kind == "region":
        raise Usage(f"{key} is a region: its content is its version; change [regions.{key}] in {FILE_NAME}")
    if path.exists() and path.is_dir() != old.folder:
        kind = "folder" if old.folder else "file"
        raise Usage(f"{path} is no {kind}, as {key} is; `ct reference add` declares another one")
    found = _looked(project, replace(old, path=_recorded(project, path), version=_checked(version)), on_bytes)
    if found.declared == old and found.before == found.after:
        raise Usage(f"{key} is version {version} with this content already; nothing was written")
    return found


def add(project: Project, key: str, path: Path, version: str, kind: str, on_bytes: OnBytes | None = None) -> Bump:
    """A reference that is not declared yet."""
    told = Reference(key, _recorded(project, path), _checked(version), kind, folder=path.is_dir())
    if told.folder and kind == "genome":
        raise Usage(f"{path} is a folder; a genome is a file with an index beside it")
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
    if path.is_dir():
        if not any(path.iterdir()):
            raise InputError(f"{path} is an empty folder; put the real files there")
        return project.recorded(path)
    if not path.is_file():
        raise InputError(
            f"{path} is {'no file' if path.exists() else 'not there'}; name the reference's file or folder"
        )
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; put the real file there")
    return project.recorded(path)


def _contents(
    project: Project, paths: Sequence[Path], on_bytes: OnBytes | None
) -> Mapping[Path, tuple[str, Signature]]:
    """The digest of each file and folder. InputError where one cannot be read whole."""
    try:
        seen = {path: signature_at(path) for path in paths}
    except OSError as error:
        raise InputError(f"{error.filename or paths[0]}: {error.strerror or error}") from error
    digests, problems = try_seen_contents(seen, Memory(project), on_bytes, partial(keep_members, project))
    if problems:
        raise InputError("\n".join(f"{path}: {said}" for path, said in problems.items()))
    return digests


def _looked(project: Project, told: Reference, on_bytes: OnBytes | None) -> Bump:
    """Look at the reference and at the regions on it."""
    if (problem := misplaced(project, told, project.root / told.path)) is not None:
        raise InputError(f"{told.path} {problem}")
    declared: Mapping[str, Reference] = {**project.settings.references, told.key: told}
    places = {key: project.root / one.path for key, one in declared.items() if told.key in (key, one.on)}
    there = {key: path for key, path in places.items() if is_there(declared[key], path)}
    digests = _contents(project, list(there.values()), on_bytes)
    wrong = {key: region_problems(project.root, declared, declared[key]) for key in there}
    contents = {key: (digests[path][0], digests[path][1].size) for key, path in there.items() if not wrong[key]}
    with project.catalog.read() as connection:
        rows = known_references(connection)
    seen = content_of(declared, contents, rows)
    old = rows.get(told.key)
    before = f"{old.version} {old.digest}" if old is not None else None
    return Bump(project, told, tuple(seen), before, tuple(said for some in wrong.values() for said in some))
