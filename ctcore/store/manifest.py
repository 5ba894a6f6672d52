"""Manifests: the files of an artifact as text for `b3sum -c`. The manifest's digest is the data version.

This module also finds damage in artifacts. It needs only the standard library and blake3.
"""

import os
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

from blake3 import blake3

from ctcore.errors import StoreError
from ctcore.store.digest import (
    DigestMemory,
    OnBytes,
    Signature,
    canonical_json,
    inode_of,
    is_old,
    read_files,
    tagged_digest,
    try_digests,
)
from ctcore.util import json_text

MANIFEST = "MANIFEST.b3"
SIDECAR = "ct.json"
LOG = "ct.log.gz"
OWN = frozenset({MANIFEST, SIDECAR, LOG})
NEEDED = frozenset({MANIFEST, SIDECAR})
UNKNOWN = -1
TAG = "ct.files.v2"

# Inert in paths, shells, SQL, HTML and partition keys: no blank, no quote, and neither `.` nor `-` at the beginning.
SEGMENT = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_NAME = re.compile(rf"{SEGMENT}(?:/{SEGMENT})*")
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an artifact; `size` is UNKNOWN where only a manifest's text was at hand."""

    digest: str
    size: int = UNKNOWN


@dataclass(frozen=True)
class Manifest:
    """The files of an artifact by relative name. Names, bytes and which output is which file are its identity."""

    files: Mapping[str, FileEntry]

    def __post_init__(self) -> None:
        check_names(self.files)

    def text(self) -> str:
        """One line a file, sorted by name, as `b3sum` writes them."""
        return "".join(f"{self.files[name].digest}  {name}\n" for name in sorted(self.files))

    @cached_property
    def data_version(self) -> str:
        """The digest that identifies the files alone: the content of artifacts that were published without `TAG`."""
        return tagged_digest("ct.files.v1", self.text().encode())

    def version(self, outputs: Mapping[str, str]) -> str:
        """The digest that identifies an artifact's content: the files, and the file of each output's name."""
        return tagged_digest(TAG, self.text().encode() + canonical_json(dict(outputs)))

    def version_by(self, side: Mapping[str, Any]) -> str:
        """The same under the tag that a sidecar names; before there were two, it named none."""
        return self.version(side["outputs"]) if side["store"].get("tag") == TAG else self.data_version

    @classmethod
    def parse(cls, text: str, sizes: Mapping[str, int] | None = None) -> "Manifest":
        """The manifest of a text, which must be exactly as `text()` writes it; StoreError where it is not."""
        files: dict[str, FileEntry] = {}
        for number, line in enumerate(text.split("\n")[:-1], 1):
            found = _LINE.fullmatch(line)
            if found is None:
                raise StoreError(f"manifest line {number}: {line!r} is not `<64 hex digits>  <name>`")
            digest, name = found.groups()
            files[name] = FileEntry(digest, (sizes or {}).get(name, UNKNOWN))
        manifest = cls(files)
        # One text for one set of files: otherwise the same files could have two data versions.
        if manifest.text() != text:
            raise StoreError("manifest: lines are not sorted by name, not unique, or cut off at the end")
        return manifest


def check_names(names: Iterable[str]) -> None:
    """StoreError for names that are not the same harmless relative path everywhere."""
    listed = list(names)
    if odd := [name for name in listed if not _NAME.fullmatch(name)]:
        raise StoreError(
            f"{', '.join(map(repr, odd))}: no name for a file of an artifact; use letters, digits, `_`, `.`"
            " and `-` with a letter or digit first, and `/` between folders"
        )
    if taken := sorted(OWN.intersection(listed)):
        raise StoreError(f"{', '.join(taken)}: the store writes a file of this name itself; rename the output")


def scan(folder: str, prefix: str = "") -> dict[str, os.stat_result]:
    """The lstat of everything in a folder by relative name; of folders (`name/`), only empty ones."""
    found: dict[str, os.stat_result] = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda one: one.name):  # disks list in no order, or in their own
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                inner = scan(entry.path, name + "/")
                found.update(inner or {name + "/": entry.stat(follow_symlinks=False)})
            else:
                found[name] = entry.stat(follow_symlinks=False)
    return found


def version_in_sidecar(side: Mapping[str, Any]) -> str:
    """The data version of an artifact by what its sidecar says of its files, which are not looked at."""
    files = {file: FileEntry(one["digest"]) for file, one in side["store"]["files"].items()}
    return Manifest(files).version_by(side)


def manifest_of(folder: Path, names: Sequence[str] | None = None) -> Manifest:
    """The manifest of these files in a folder; without names, of all files but the store's own."""
    seen = scan(os.fspath(folder))
    listed = [name for name in seen if name not in OWN] if names is None else list(names)
    check_names(listed)
    if odd := [name for name in listed if name not in seen or not S_ISREG(seen[name].st_mode)]:
        raise StoreError(f"{folder}: {', '.join(odd)}: not there as a regular file (a link is none)")
    paths = {name: os.path.join(folder, name) for name in listed}
    reads = read_files(paths.values())
    return Manifest({name: FileEntry(*reads[path][:2]) for name, path in paths.items()})


@dataclass(frozen=True, slots=True)
class Damage:
    """The problem of one file of an artifact, as text."""

    file: str
    problem: str


@dataclass(frozen=True, slots=True)
class ExpectedArtifact:
    """An artifact as published: its folder, (size, digest) by file, and the signatures of that time.

    `doubted`: files recorded as damaged; only reading them can clear them.
    """

    folder: Path | str
    files: Mapping[str, tuple[int, str]] | Manifest
    signatures: Mapping[str, Signature] | None = None
    doubted: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class ArtifactCheck:
    """The damage of an artifact, the files read and found intact, and the bytes still unread."""

    damages: list[Damage] = field(default_factory=list)
    read: dict[str, Signature] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)


@dataclass
class Allowance:
    """A budget of bytes to read; files beyond it are left."""

    left: int

    def takes(self, size: int) -> bool:
        if size > self.left:
            return False
        self.left -= size
        return True


def check_many(
    items: Iterable[ExpectedArtifact], *, deep: bool = False, on_bytes: OnBytes | None = None
) -> list[list[Damage]]:
    """The damage of each of these artifacts, in their order; an empty list for an intact one. See `checked`."""
    return [one.damages for one in check_artifacts(items, deep=deep, on_bytes=on_bytes)]


def check_artifacts(
    items: Iterable[ExpectedArtifact],
    *,
    deep: bool = False,
    on_bytes: OnBytes | None = None,
    memory: DigestMemory[str] | None = None,
    allowance: Allowance | None = None,
) -> list[ArtifactCheck]:
    """Check each of these artifacts, in their order.

    Reads only doubted files, and files of the right size with an unknown or unexpected signature. `deep` trusts no
    signature and reads every file, including manifest and sidecar. Files that `memory` knows as damaged are not read
    again. An `allowance` bounds the reading.
    """
    look = _Look(deep)
    found = [look.at(item) for item in items]
    if memory is not None:
        look.recall(memory)
    if allowance is not None:
        look.leave(allowance)
    look.read(on_bytes, memory)
    return found


class _Doubt(NamedTuple):
    """A file to read: its artifact, and its expected content."""

    name: str
    digest: str
    checked: ArtifactCheck
    seen: Signature | None


class _Look:
    """Looks at folders first, and then reads all doubtful files of all of them in one go."""

    def __init__(self, deep: bool) -> None:
        self.deep = deep
        self.doubtful: dict[str, _Doubt] = {}

    def at(self, item: ExpectedArtifact) -> ArtifactCheck:
        folder, files = os.fspath(item.folder), _pairs(item.files)
        found = ArtifactCheck()
        damages = found.damages
        try:
            seen = scan(folder)
        except (FileNotFoundError, NotADirectoryError):
            damages += [Damage(name, "gone") for name in files]
            return found
        except OSError as error:
            damages += [Damage(name, f"cannot be read: {error.strerror}") for name in files]
            return found
        signatures = item.signatures or {}
        for name, (size, digest) in files.items():
            stat = seen.pop(name, None)
            if problem := _visible(stat, size):
                damages.append(Damage(name, problem))
            elif self.deep or _touched(stat, signatures.get(name)) or name in item.doubted:
                self.doubtful[f"{folder}/{name}"] = _Doubt(name, digest, found, stat and Signature.from_stat(stat))
        self._own(item, folder, files, seen, found)
        damages.extend(Damage(name, "not of this artifact") for name in seen)
        return found

    def _own(
        self,
        item: ExpectedArtifact,
        folder: str,
        files: Mapping[str, tuple[int, str]],
        seen: dict[str, os.stat_result],
        found: ArtifactCheck,
    ) -> None:
        """Check the store's own files: without them, the artifact could not be found again."""
        there = {name for name in OWN if (stat := seen.pop(name, None)) and S_ISREG(stat.st_mode)}
        found.damages.extend(Damage(name, "gone") for name in sorted(NEEDED - there))
        wanted = {name for name in there if self.deep or name in item.doubted}
        if not wanted:
            return
        manifest = Manifest({name: FileEntry(digest) for name, (_, digest) in files.items()})
        if MANIFEST in wanted:
            digest = blake3(manifest.text().encode()).hexdigest()
            self.doubtful[f"{folder}/{MANIFEST}"] = _Doubt(MANIFEST, digest, found, None)
        if SIDECAR in wanted and (problem := _sidecar_problem(f"{folder}/{SIDECAR}", manifest)):
            found.damages.append(Damage(SIDECAR, problem))

    def recall(self, memory: DigestMemory[str]) -> None:
        """A file read in its present state and found damaged is still damaged. That it is intact, only reading
        shows."""
        seen = {path: doubt.seen for path, doubt in self.doubtful.items() if doubt.seen is not None}
        for path, digest in memory.lookup(seen).items() if seen else ():
            if digest != self.doubtful[path].digest:
                self._compare(self.doubtful.pop(path), digest)

    def leave(self, allowance: Allowance) -> None:
        """Keep the files within the allowance, and note the rest."""
        for path, doubt in list(self.doubtful.items()):
            size = doubt.seen.size if doubt.seen else 0
            if not allowance.takes(size):
                doubt.checked.unread[doubt.name] = size
                del self.doubtful[path]

    def read(self, on_bytes: OnBytes | None, memory: DigestMemory[str] | None) -> None:
        began = time.time_ns()
        reads, problems = try_digests(self.doubtful, on_bytes=on_bytes)
        wrong: dict[str, tuple[Signature, str]] = {}
        for path, doubt in self.doubtful.items():
            if path in problems:
                doubt.checked.damages.append(Damage(doubt.name, f"cannot be read: {problems[path]}"))
                continue
            digest, seen = reads[path][0], Signature(*reads[path][1:])
            if self._compare(doubt, digest):
                doubt.checked.read[doubt.name] = seen.proven(began)
            # A file that was read right after its last write may be whole by now under the same signature.
            elif is_old(seen, began):
                wrong[path] = (seen, digest)
        if wrong and memory is not None:
            memory.remember(wrong)

    def _compare(self, doubt: _Doubt, digest: str) -> bool:
        if digest == doubt.digest:
            return True
        said = f"changed (digest {doubt.digest[:8]}… → {digest[:8]}…)"
        doubt.checked.damages.append(Damage(doubt.name, said))
        return False


def _pairs(files: Mapping[str, tuple[int, str]] | Manifest) -> Mapping[str, tuple[int, str]]:
    if isinstance(files, Manifest):
        return {name: (entry.size, entry.digest) for name, entry in files.files.items()}
    return files


def _visible(stat: os.stat_result | None, size: int) -> str | None:
    """The problem that shows without reading."""
    if stat is None:
        return "gone"
    if not S_ISREG(stat.st_mode):
        return "no longer a regular file"
    return None if size in (UNKNOWN, stat.st_size) else f"size {size} → {stat.st_size}"


def _touched(stat: os.stat_result | None, signature: Signature | None) -> bool:
    return (
        stat is None
        or signature is None
        or stat.st_mtime_ns != signature.mtime_ns
        or inode_of(stat) != signature.inode
        or stat.st_size != signature.size
        or stat.st_ctime_ns != signature.ctime_ns
    )


def _sidecar_problem(path: str, manifest: Manifest) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            side = json_text.loads(file.read())
    except (OSError, ValueError):
        return "no longer JSON"
    try:
        same = side["store"]["data_version"] == manifest.version_by(side)
    except (LookupError, TypeError, AttributeError, ValueError):
        same = False
    return None if same else "its files or its outputs are not those of its data version"
