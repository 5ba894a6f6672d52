"""A folder as one content: the digest of its tree, and the signature by which an unchanged one is not read again.

The tree is its files with their digests and its folders, by their paths in it. A link counts as what it leads to, which
has to lie inside. It runs on compute nodes too.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from blake3 import blake3

from ctcore.store.digest import (
    DigestMemory,
    OnBytes,
    P,
    Read,
    Signature,
    is_old,
    tagged_digest,
    try_digests,
    try_seen,
)
from ctcore.util.atomic_file import write_whole

Keep = Callable[[str, bytes], None]  # of a folder, its digest and listing
TAG = "ct.folder.v2"
LISTED = ".folders"
_FOLDER = "/"  # in place of a digest
_HEAD = re.compile(rb"(/|[0-9a-f]{64}) ([0-9]+) ([0-9]+) ")
_INODE_BITS = 2**63 - 1


@dataclass(frozen=True)
class Member:
    """A file or, without a signature, a folder in a folder; `name` is its path there, as the disk has it."""

    name: bytes
    seen: Signature | None


def members_of(root: Path | str) -> list[Member]:
    """Everything in a folder, by its path. OSError names what is neither file nor folder, and a link that leads out of
    it, to nothing, or in a circle."""
    top = os.fsencode(root)
    return sorted(_walk(top, b"", os.path.realpath(top), ()), key=lambda one: one.name)


def _walk(top: bytes, inside: bytes, real_top: bytes, above: Sequence[bytes]) -> Iterator[Member]:
    here = os.path.realpath(os.path.join(top, inside))
    if here in above:
        raise OSError(f"{_shown(inside)} leads back to a folder above it; take the link out")
    for entry in _entries(top, inside):
        name = os.path.join(inside, entry.name)
        if entry.is_symlink():
            _refuse_outside(name, entry.path, real_top)
        try:
            stat = entry.stat()
        except OSError as error:
            raise OSError(f"{_shown(name)}: {error.strerror}") from None
        if S_ISDIR(stat.st_mode):
            yield Member(name, None)
            yield from _walk(top, name, real_top, (*above, here))
        elif S_ISREG(stat.st_mode):
            yield Member(name, Signature.from_stat(stat))
        else:
            raise OSError(f"{_shown(name)} is neither a file nor a folder; take it out")


def _entries(top: bytes, inside: bytes) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(os.path.join(top, inside)) as entries:
            return sorted(entries, key=lambda one: one.name)
    except OSError as error:
        raise OSError(f"{_shown(inside)}: {error.strerror}" if inside else error.strerror) from None


def _refuse_outside(name: bytes, path: bytes, real_top: bytes) -> None:
    real = os.path.realpath(path)
    if not os.path.lexists(real):
        raise OSError(f"{_shown(name)} is a link to nothing; put its target into the folder, or take it out")
    if real != real_top and not real.startswith(os.path.join(real_top, b"")):
        raise OSError(f"{_shown(name)} is a link out of the folder; put its target into the folder")


def _shown(name: bytes) -> str:
    return repr(name)[2:-1]


def _signature(members: Iterable[Member], stat: os.stat_result) -> Signature:
    """One for all: the bytes and the latest times of its files, and a number that every path and signature is in."""
    files = [(one.name, one.seen) for one in members if one.seen is not None]
    hasher = blake3()
    for one in members:
        hasher.update(b"%d:%b%b\n" % (len(one.name), one.name, repr(one.seen and tuple(one.seen)).encode()))
    return Signature(
        sum(seen.size for _, seen in files),
        max((seen.mtime_ns for _, seen in files), default=stat.st_mtime_ns),
        int.from_bytes(hasher.digest(8), "big") & _INODE_BITS,
        max((seen.ctime_ns for _, seen in files), default=stat.st_ctime_ns),
    )


def signature_at(path: Path | str) -> Signature:
    """The signature of a file, or of all that is in a folder; OSError where there is none."""
    stat = os.stat(path)
    return _signature(members_of(path), stat) if S_ISDIR(stat.st_mode) else Signature.from_stat(stat)


def listing(members: Iterable[Member], digests: Mapping[bytes, str]) -> bytes:
    """All that a folder's digest is of: a line a member, with its bytes and the length of its path, which may have any
    byte."""
    lines = (_line(one, digests) for one in sorted(members, key=lambda one: one.name))
    return b"".join(lines)


def _line(one: Member, digests: Mapping[bytes, str]) -> bytes:
    digest, size = (_FOLDER, 0) if one.seen is None else (digests[one.name], one.seen.size)
    return b"%b %d %d %b\n" % (digest.encode(), size, len(one.name), one.name)


def try_contents(
    paths: Iterable[P],
    on_bytes: OnBytes | None = None,
    keep: Keep | None = None,
) -> tuple[dict[P, Read], dict[P, str]]:
    """As `try_digests`, of files and of folders. `keep` is given the listing of each folder."""
    listed = list(paths)
    folders = {path: None for path in listed if os.path.isdir(path)}
    found, problems = try_digests([path for path in listed if path not in folders], on_bytes=on_bytes)
    for path in folders:
        try:
            found[path] = _read(path, on_bytes, keep)
        except OSError as error:
            problems[path] = str(error.strerror or error)
    return found, problems


def _read(path: Path | str, on_bytes: OnBytes | None, keep: Keep | None) -> Read:
    members, stat, top = members_of(path), os.stat(path), os.fsencode(path)
    places = {os.fsdecode(os.path.join(top, one.name)): one.name for one in members if one.seen is not None}
    reads, problems = try_digests(places, on_bytes=on_bytes)
    for place, said in problems.items():
        raise OSError(f"{_shown(places[place])}: {said}")
    text = listing(members, {places[place]: read[0] for place, read in reads.items()})
    as_read = [
        Member(one.name, one.seen and Signature(*reads[os.fsdecode(os.path.join(top, one.name))][1:]))
        for one in members
    ]
    # Again: what was written, added or taken away meanwhile shows.
    if not as_read == members == members_of(path):
        raise OSError("changed while it was read; wait until its writer is done")
    digest = tagged_digest(TAG, text)
    if keep is not None:
        keep(digest, text)
    seen = _signature(members, stat)
    return digest, seen.size, seen.mtime_ns, seen.inode, seen.ctime_ns


def try_seen_contents(
    signatures: Mapping[P, Signature],
    memory: DigestMemory[P],
    on_bytes: OnBytes | None = None,
    keep: Keep | None = None,
) -> tuple[dict[P, tuple[str, Signature]], dict[P, str]]:
    """As `try_seen`, of files and of folders: one that is remembered with its present signature is not read again."""
    folders = {path: seen for path, seen in signatures.items() if os.path.isdir(path)}
    files = {path: seen for path, seen in signatures.items() if path not in folders}
    found, problems = try_seen(files, memory, on_bytes=on_bytes)
    began, known = time.time_ns(), memory.lookup(folders)
    reads, unread = try_contents([path for path in folders if path not in known], on_bytes, keep)
    fresh = {path: (read[0], Signature(*read[1:])) for path, read in reads.items()}
    if settled := {path: (seen, digest) for path, (digest, seen) in fresh.items() if is_old(seen, began)}:
        memory.remember(settled)
    found |= {path: (digest, folders[path]) for path, digest in known.items()}
    found |= {path: (digest, seen.proven(began)) for path, (digest, seen) in fresh.items()}
    return found, {**problems, **unread}


def keep_listing(store: Path, digest: str, text: bytes) -> None:
    """Keep what a folder's digest is of, so that a later change can be told by its files."""
    place = listing_place(store, digest)
    if not place.exists():
        # Two that come here at once write the same bytes: the name is their digest.
        write_whole(place, text, mode=0o444)


def differing_members(store: Path, old: str, new: str) -> list[str]:
    """Which paths of a folder differ between two digests; empty if a listing was not kept, or is not that of its
    digest."""
    before, after = (kept_members(store, digest) for digest in (old, new))
    if before is None or after is None:
        return []
    return [_shown(name) for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]


def kept_members(store: Path, digest: str) -> dict[bytes, tuple[str, int]] | None:
    """The paths in a folder by its digest, each with its own digest (of a folder, none) and its bytes; None if the
    listing was not kept, or is not that of the digest."""
    try:
        text = listing_place(store, digest).read_bytes()
    except OSError:
        return None
    return members_listed(text) if tagged_digest(TAG, text) == digest else None


def members_listed(text: bytes) -> dict[bytes, tuple[str, int]]:
    """The same of a listing's text."""
    found, at = dict[bytes, tuple[str, int]](), 0
    while head := _HEAD.match(text, at):
        end = head.end() + int(head[3])
        found[text[head.end() : end]], at = (head[1].decode().removeprefix(_FOLDER), int(head[2])), end + 1
    return found


def listing_place(store: Path, digest: str) -> Path:
    """Where the listing of a folder is kept."""
    return store / LISTED / digest


def kept_listings(store: Path) -> list[str]:
    """The digests of all folders of which a listing is kept."""
    try:
        return sorted(name for name in os.listdir(store / LISTED) if re.fullmatch("[0-9a-f]{64}", name))
    except FileNotFoundError:
        return []


def files_among(store: Path, folders: Iterable[str], digests: Set[str]) -> set[str]:
    """Which of these are the digests of files in these folders, that are not empty."""
    found: set[str] = set()
    for one in folders if digests else ():
        found |= digests & {digest for digest, size in (kept_members(store, one) or {}).values() if size}
    return found


def listings_with(store: Path, digest: str) -> list[str]:
    """The folders of which a listing has a file with this digest."""
    sought, found = digest.encode(), list[str]()
    for one in kept_listings(store):
        with suppress(OSError):  # a purge may take it away meanwhile
            if sought in listing_place(store, one).read_bytes():
                found.append(one)
    return [one for one in found if digest in {said for said, _ in (kept_members(store, one) or {}).values()}]
