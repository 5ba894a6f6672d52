"""⑤ Manifests: which files make up an artifact, as text for `b3sum -c`; its digest is the data version.

Also tells what is wrong with the files of artifacts. Needs the standard library and blake3 only.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from stat import S_ISREG
from typing import Any

from blake3 import blake3

from ctcore.digest import OnBytes, Signature, canonical, inode_of, read_files, tagged, try_digests
from ctcore.errors import StoreError

MANIFEST = "MANIFEST.b3"
SIDECAR = "ct.json"
LOG = "ct.log.gz"
OWN = frozenset({MANIFEST, SIDECAR, LOG})
NEEDED = frozenset({MANIFEST, SIDECAR})
UNKNOWN = -1
TAG = "ct.files.v2"

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
        return tagged("ct.files.v1", self.text().encode())

    def version(self, outputs: Mapping[str, str]) -> str:
        """The digest that identifies an artifact's content: the files, and the file of each output's name."""
        return tagged(TAG, self.text().encode() + canonical(dict(outputs)))

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
    """The lstat of all that is in a folder, by relative name; of folders (`name/`) only the empty ones."""
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


def manifest_of(folder: Path, names: Sequence[str] | None = None) -> Manifest:
    """The manifest of these files in a folder; without names, of all but what the store added."""
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
    """What is wrong with one file of an artifact, in words."""

    file: str
    problem: str


@dataclass(frozen=True, slots=True)
class Expected:
    """An artifact as it was published: where, its (size, digest) by file, and the signatures it had then."""

    folder: Path | str
    files: Mapping[str, tuple[int, str]] | Manifest
    signatures: Mapping[str, Signature] | None = None


def check_many(items: Iterable[Expected], *, deep: bool = False, on_bytes: OnBytes | None = None) -> list[list[Damage]]:
    """What is wrong with each of these artifacts, in their order; an empty list where nothing is.

    Reads only files whose size is right and whose signature is other than expected or not known; `deep`
    trusts no signature and reads every file, and the manifest and sidecar beside them.
    """
    look = _Look(deep)
    found = [look.at(item) for item in items]
    look.read(on_bytes)
    return found


class _Look:
    """Looks at folders first, and then reads all doubtful files of all of them in one go."""

    def __init__(self, deep: bool) -> None:
        self.deep = deep
        self.doubtful: dict[str, tuple[str, str, list[Damage]]] = {}

    def at(self, item: Expected) -> list[Damage]:
        folder, files = os.fspath(item.folder), _pairs(item.files)
        damages: list[Damage] = []
        try:
            seen = scan(folder)
        except (FileNotFoundError, NotADirectoryError):
            return [Damage(name, "gone") for name in files]
        except OSError as error:
            return [Damage(name, f"cannot be read: {error.strerror}") for name in files]
        signatures = item.signatures or {}
        for name, (size, digest) in files.items():
            stat = seen.pop(name, None)
            if problem := _visible(stat, size):
                damages.append(Damage(name, problem))
            elif self.deep or _touched(stat, signatures.get(name)):
                self.doubtful[f"{folder}/{name}"] = (name, digest, damages)
        self._own(folder, files, seen, damages)
        damages.extend(Damage(name, "not of this artifact") for name in seen)
        return damages

    def _own(
        self,
        folder: str,
        files: Mapping[str, tuple[int, str]],
        seen: dict[str, os.stat_result],
        damages: list[Damage],
    ) -> None:
        """What the store wrote itself: without it the artifact would not be found again."""
        there = {name for name in OWN if (stat := seen.pop(name, None)) and S_ISREG(stat.st_mode)}
        damages.extend(Damage(name, "gone") for name in sorted(NEEDED - there))
        if not self.deep:
            return
        manifest = Manifest({name: FileEntry(digest) for name, (_, digest) in files.items()})
        if MANIFEST in there:
            digest = blake3(manifest.text().encode()).hexdigest()
            self.doubtful[f"{folder}/{MANIFEST}"] = (MANIFEST, digest, damages)
        if SIDECAR in there and (problem := _sidecar_problem(f"{folder}/{SIDECAR}", manifest)):
            damages.append(Damage(SIDECAR, problem))

    def read(self, on_bytes: OnBytes | None) -> None:
        reads, problems = try_digests(self.doubtful, on_bytes=on_bytes)
        for path, (name, digest, damages) in self.doubtful.items():
            if path in problems:
                damages.append(Damage(name, f"cannot be read: {problems[path]}"))
            elif reads[path][0] != digest:
                damages.append(Damage(name, f"changed (digest {digest[:8]}… → {reads[path][0][:8]}…)"))


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
    )


def _sidecar_problem(path: str, manifest: Manifest) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            side = json.load(file)
    except (OSError, ValueError):
        return "no longer JSON"
    try:
        same = side["store"]["data_version"] == manifest.version_by(side)
    except (LookupError, TypeError, AttributeError, ValueError):
        same = False
    return None if same else "its files or its outputs are not those of its data version"
