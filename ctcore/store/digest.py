"""Digests, which identify everything: BLAKE3 of values (canonical JSON, tagged) and of files, at full speed.

It runs on compute nodes too, so it needs only the standard library and blake3.
"""

import errno
import hashlib
import json
import mmap
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple, Protocol, TypeVar

from blake3 import blake3

from ctcore.errors import InputError, Usage

P = TypeVar("P", str, Path)
Read = tuple[str, int, int, int, int]  # the digest, then a Signature's fields; an object each would cost 15 % more
OnBytes = Callable[[int], None]
Hasher = Any  # blake3 or hashlib's

DIGEST_LENGTH = 64  # hexadecimal digits
# FAT keeps times in steps of two seconds, the coarsest that is met: within one step, a second write can hide.
RACY_NS = 2_000_000_000
_TICK_NS = 20_000_000  # the kernel stamps files at most 10 ms late; only some file systems keep whole seconds
_MEDIUM = 128 << 10  # from here on hashing outweighs the interpreter, and threads help
_LARGE = 64 << 20  # from here on one file keeps all cores busy
_BUFFER = 256 << 10
_WINDOW = 64 << 20  # mapped at a time: as fast as the whole file, yet never more than 64 MiB of RSS
_CHUNK = 8 << 20  # read at a time where nothing is mapped
_OPEN = os.O_RDONLY | os.O_NONBLOCK  # opening a pipe must not wait for its writer
_INODE_BITS = 2**63 - 1
_NESTED = (dict, list, tuple)
_DIGEST = re.compile("[0-9a-f]{64}")
_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def tagged_digest(tag: str, data: bytes) -> str:
    """The digest of data as something: equal bytes under different tags have different digests."""
    if "\0" in tag:
        raise ValueError(f"tag {tag!r} contains NUL, which ends a tag")
    # Without an end of the tag, `ct.a` with `b…` would be `ct.ab` with `…`.
    return blake3(tag.encode() + b"\0" + data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no blanks, UTF-8; 1, 1.0, true and "1" stay four values.

    ValueError for values without such a text: NaN, infinities, keys that are not text, lone surrogates, other types.
    """
    try:
        text = _JSON.encode(value)
        _only_text_keys(value)
    except TypeError as error:
        raise ValueError(f"{value!r} is not a JSON value: {error}") from error
    except RecursionError:
        raise ValueError("it is nested too deeply to be written") from None
    return text.encode()


def digest_value(tag: str, value: Any) -> str:
    """The digest of a JSON value as something."""
    return tagged_digest(tag, canonical_json(value))


def digest_text(text: str) -> str:
    """64 hexadecimal digits that identify any text; a digest identifies itself."""
    return text if _DIGEST.fullmatch(text) else tagged_digest("ct.text.v1", text.encode())


def _only_text_keys(value: Any) -> None:
    """json.dumps writes the key 1 as "1": two values with one text."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"key {key!r} of a JSON object is not text")
            if isinstance(inner, _NESTED):
                _only_text_keys(inner)
    elif isinstance(value, _NESTED):
        for inner in value:
            if isinstance(inner, _NESTED):
                _only_text_keys(inner)


class Signature(NamedTuple):
    """Cheap evidence that a file was not touched. It is no identity and no proof of its bytes.

    A program can set the mtime back; only the kernel sets the ctime. No file has `ctime_ns` 0, so with it a file is
    read again.
    """

    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path | str) -> "Signature":
        """The signature of a file now; OSError where there is none."""
        return cls.from_stat(os.stat(path))

    @classmethod
    def from_stat(cls, stat: os.stat_result) -> "Signature":
        return cls(stat.st_size, stat.st_mtime_ns, inode_of(stat), stat.st_ctime_ns)

    def is_like(self, known: Sequence[int], unknown: bool = False) -> bool:
        """Whether a file matches its record; with `unknown`, also if its ctime was never recorded."""
        return self == known or (unknown and known[3] == 0 and self[:3] == known[:3])

    def settled(self, began_ns: int) -> bool:
        """Whether a write after this moment would show: one within the clock's granularity does not."""
        # A time that is a whole number of milliseconds may come from a coarse clock (NFS servers, FAT).
        tick = _TICK_NS if self.ctime_ns % 1_000_000 else RACY_NS
        return self.ctime_ns < began_ns - tick

    def proven(self, began_ns: int) -> "Signature":
        """The signature to keep of a file read from this moment on. A file that was too young is read once more."""
        return self if self.settled(began_ns) else self._replace(ctime_ns=0)


def inode_of(stat: os.stat_result) -> int:
    """The inode number as far as databases can keep it: their integers have a sign, and some numbers all 64 bits."""
    # Integers of SQLite and PostgreSQL have 64 bits with a sign.
    return stat.st_ino & _INODE_BITS


def is_old(seen: Signature, began_ns: int) -> bool:
    """Whether a file read from this moment on was old enough to be remembered by its signature."""
    return seen.mtime_ns < began_ns - RACY_NS and seen.settled(began_ns)


class DigestMemory(Protocol[P]):
    """Remembers digests by (path, signature), many at a time."""

    def lookup(self, wanted: Mapping[P, Signature], /) -> Mapping[P, str]:
        """The digests of those files that are remembered with exactly this signature."""
        ...

    def remember(self, found: Mapping[P, tuple[Signature, str]], /) -> None:
        """Keep these digests, in place of older ones of the same paths."""
        ...


def digest_files(paths: Iterable[P], *, on_bytes: OnBytes | None = None, rss_safe: bool = False) -> dict[P, str]:
    """The BLAKE3 digest of each file's bytes, as `b3sum` prints it.

    `on_bytes` gets the number of bytes read since its last call; other threads may call it, one at a time. Large files
    are mapped, 64 MiB at a time; `rss_safe` reads them instead, at 1.3 times the time. InputError names every file that
    is missing, unreadable or changing. A write that was under way before the reading began can escape this check. Paths
    may be text, which is quicker.
    """
    return {path: read[0] for path, read in read_files(paths, on_bytes=on_bytes, rss_safe=rss_safe).items()}


def read_files(paths: Iterable[P], *, on_bytes: OnBytes | None = None, rss_safe: bool = False) -> dict[P, Read]:
    """As `digest_files`, each digest with the size, mtime, inode and ctime that the file had when it was read."""
    found, problems = try_digests(paths, on_bytes=on_bytes, rss_safe=rss_safe, go_on=False)
    _refuse(problems)
    return found


def digest_remembered(
    paths: Sequence[P], memory: DigestMemory[P], *, on_bytes: OnBytes | None = None
) -> dict[P, tuple[str, Signature]]:
    """Digests with signatures. A file remembered with its present signature is not read again.

    A file written in the last two seconds is not remembered: another write of the same size within the clock's
    granularity could leave its signature unchanged (git calls this racily clean). The ctime gives further evidence.
    """
    return digest_seen(_signatures(paths), memory, on_bytes=on_bytes)


def digest_seen(
    signatures: Mapping[P, Signature],
    memory: DigestMemory[P],
    *,
    before_reading: Callable[[], None] = lambda: None,
    on_bytes: OnBytes | None = None,
) -> dict[P, tuple[str, Signature]]:
    """Like `digest_remembered`, for files with a fresh stat; `before_reading` may still refuse.

    The signature of a file that was too young has no ctime, so the file is read once more later.
    """
    found, problems = try_seen(signatures, memory, before_reading=before_reading, on_bytes=on_bytes, go_on=False)
    _refuse(problems)
    return found


def try_seen(
    signatures: Mapping[P, Signature],
    memory: DigestMemory[P],
    *,
    before_reading: Callable[[], None] = lambda: None,
    on_bytes: OnBytes | None = None,
    go_on: bool = True,
) -> tuple[dict[P, tuple[str, Signature]], dict[P, str]]:
    """The same for readable files; for each of the others, the problem as text."""
    began = time.time_ns()
    known = memory.lookup(signatures)
    unknown = [path for path in signatures if path not in known]
    if unknown:
        before_reading()
    found, problems = try_digests(unknown, on_bytes=on_bytes, go_on=go_on)
    fresh = {path: (digest, Signature(*signature)) for path, (digest, *signature) in found.items()}
    settled = {path: (s, digest) for path, (digest, s) in fresh.items() if is_old(s, began)}
    if settled:
        memory.remember(settled)
    read = {path: (digest, seen.proven(began)) for path, (digest, seen) in fresh.items()}
    kept = {path: (known[path], signature) for path, signature in signatures.items() if path in known}
    return {path: (read.get(path) or kept[path]) for path in signatures if path in read or path in kept}, problems


def checksum_file(path: P, algorithm: str) -> str:
    """The md5, sha256 or blake3 of a file in hexadecimal, to compare with a supplier's."""
    if algorithm == "blake3":
        return digest_files([path])[path]
    if algorithm not in ("md5", "sha256"):
        raise Usage(f"no checksum algorithm {algorithm!r}; known: md5, sha256, blake3")
    # For comparison with a supplier's list only; FIPS builds of OpenSSL refuse md5 otherwise.
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    try:
        with _opened(path) as (fd, _):
            _read_into(hasher, fd, memoryview(bytearray(_BUFFER)))
    except (OSError, ValueError) as error:
        _refuse({path: _words(error)})
    return hasher.hexdigest()


def try_digests(
    paths: Iterable[P], *, on_bytes: OnBytes | None = None, rss_safe: bool = False, go_on: bool = True
) -> tuple[dict[P, Read], dict[P, str]]:
    """Digest and signature of each readable file; for each of the others, the problem as text.

    It opens every file before it reads the larger ones. Without `go_on` it skips those after a problem, so that a
    missing file is reported in seconds and not after hours of reading.
    """
    names = {os.fspath(path): path for path in paths}  # Path objects are slow keys
    work = _Work(on_bytes or (lambda _: None))
    work.read_small(names)
    if go_on or not work.problems:
        work.read_medium()
    if go_on or not work.problems:
        work.read_large(rss_safe)
    found = {names[name]: result for name, result in work.found.items()}
    return found, {names[name]: problem for name, problem in work.problems.items()}


@dataclass
class _Work:
    """Files on their way, each read in the way that is best for its size."""

    on_bytes: OnBytes
    found: dict[str, Read] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    medium: deque[str] = field(default_factory=deque)
    large: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read_small(self, paths: Iterable[str]) -> None:
        """One thread: at a few KB, a file is all system calls and interpreter."""
        settled_before = time.time_ns() - RACY_NS
        # One buffer for all: `os.read(fd, 1 MiB)` makes an object of that size for each file, and takes three times as
        # long.
        buffer = memoryview(bytearray(_MEDIUM))
        found, done = self.found, 0
        for path in paths:
            try:
                result = _small(path, buffer, settled_before)
            except (OSError, ValueError) as error:
                self.problems[path] = _words(error)
                continue
            if isinstance(result, int):
                (self.medium if result < _LARGE else self.large).append(path)
                continue
            found[path] = result
            done += result[1]
            if done >= _CHUNK:
                self.on_bytes(done)
                done = 0
        if done:
            self.on_bytes(done)

    def read_medium(self) -> None:
        """All cores: reading and hashing leave the interpreter to others."""
        # BLAKE3 and read() let go of the interpreter's lock; at a few KB a file, the interpreter is all there is.
        threads = min(len(self.medium), _cores())
        if threads < 2:
            return self._drain()
        with ThreadPoolExecutor(threads) as pool:
            try:
                for future in [pool.submit(self._drain) for _ in range(threads)]:
                    future.result()
            finally:
                self.medium.clear()  # interrupted: the other threads stop after their present file

    def read_large(self, rss_safe: bool) -> None:
        """One at a time, each with all cores."""
        for path in self.large:
            self._read(path, lambda fd, seen: _hash_large(fd, seen, self._tell, rss_safe))

    def _drain(self) -> None:
        buffer = memoryview(bytearray(_BUFFER))
        while True:
            try:
                path = self.medium.popleft()
            except IndexError:
                return
            self._read(path, lambda fd, _: self._hash_medium(fd, buffer))

    def _hash_medium(self, fd: int, buffer: memoryview) -> Hasher:
        hasher = blake3()
        self._tell(_read_into(hasher, fd, buffer))
        return hasher

    def _read(self, path: str, hash_it: Callable[[int, os.stat_result], Hasher]) -> None:
        try:
            with _opened(path) as (fd, seen):
                hasher = hash_it(fd, seen)
        except (OSError, ValueError) as error:
            self.problems[path] = _words(error)
        else:
            self.found[path] = _as_read(hasher.hexdigest(), seen)

    def _tell(self, done: int) -> None:
        with self.lock:
            self.on_bytes(done)


def _small(path: str, buffer: memoryview, settled_before: int) -> Read | int:
    """A small file's digest; the size of a larger one.

    This is the hot path: one fstat if the ctime is old enough to prove that nothing was written since the file was
    opened, otherwise the two of `_opened`.
    """
    fd = os.open(path, _OPEN)
    try:
        # fstat after the read: a write in between shows as a young ctime, which takes the slow way below.
        size = os.readv(fd, (buffer,))
        seen = os.fstat(fd)
    finally:
        os.close(fd)
    if seen.st_size >= _MEDIUM:
        return seen.st_size
    if size == seen.st_size and seen.st_ctime_ns < settled_before and S_ISREG(seen.st_mode):
        return _as_read(blake3(buffer[:size]).hexdigest(), seen)
    hasher = blake3()
    with _opened(path) as (fd, seen):
        _read_into(hasher, fd, buffer)
    return _as_read(hasher.hexdigest(), seen)


def _as_read(digest: str, seen: os.stat_result) -> Read:
    return digest, seen.st_size, seen.st_mtime_ns, inode_of(seen), seen.st_ctime_ns


@contextmanager
def _opened(path: Path | str) -> Iterator[tuple[int, os.stat_result]]:
    """A regular file to read; OSError where it is not the same after as before."""
    fd = os.open(path, _OPEN)
    try:
        seen = os.fstat(fd)
        _regular(seen)
        yield fd, seen
        # By the path again: a file that was renamed over it meanwhile shows as another inode.
        if Signature.of(path) != Signature.from_stat(seen):
            raise _changing()
    finally:
        os.close(fd)


def _read_into(hasher: Hasher, fd: int, buffer: memoryview) -> int:
    total = 0
    while size := os.readv(fd, [buffer]):
        hasher.update(buffer[:size])
        total += size
    return total


def _hash_large(fd: int, seen: os.stat_result, tell: OnBytes, rss_safe: bool) -> Hasher:
    """A file written a moment ago is not mapped: if its writer truncates it, SIGBUS ends the process."""
    fresh = seen.st_mtime_ns > time.time_ns() - RACY_NS
    hasher = blake3(max_threads=blake3.AUTO)
    if rss_safe or fresh:
        _hash_piped(hasher, fd, tell)
    else:
        _hash_mapped(hasher, fd, seen.st_size, tell)
    return hasher


def _hash_mapped(hasher: Hasher, fd: int, size: int, tell: OnBytes) -> None:
    for offset in range(0, size, _WINDOW):
        length = min(_WINDOW, size - offset)
        try:
            window = mmap.mmap(fd, length, prot=mmap.PROT_READ, offset=offset)
        except ValueError as error:  # the file is shorter now
            raise _changing() from error
        with window:
            hasher.update(window)
        tell(length)


def _hash_piped(hasher: Hasher, fd: int, tell: OnBytes) -> None:
    """Read the next chunk while the present one is hashed."""
    here, there = memoryview(bytearray(_CHUNK)), memoryview(bytearray(_CHUNK))
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(os.readv, fd, [here])
        while size := coming.result():
            coming = reader.submit(os.readv, fd, [there])
            hasher.update(here[:size])
            here, there = there, here
            tell(size)


def _signatures(paths: Iterable[P]) -> dict[P, Signature]:
    signatures: dict[P, Signature] = {}
    problems: dict[P, str] = {}
    for path in paths:
        try:
            signatures[path] = Signature.of(path)
        except (OSError, ValueError) as error:
            problems[path] = _words(error)
    _refuse(problems)
    return signatures


def _regular(seen: os.stat_result) -> None:
    if not S_ISREG(seen.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")


def _changing() -> OSError:
    return OSError(errno.EBUSY, "changed while it was read; wait until its writer is done")


def _words(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing"
    return str(error.strerror) if isinstance(error, OSError) else str(error)


def _refuse(problems: Mapping[P, str]) -> None:
    if problems:
        many = "1 file has" if len(problems) == 1 else f"{len(problems)} files have"
        lines = "\n".join(f"  {path}: {problem}" for path, problem in sorted(problems.items()))
        raise InputError(f"{many} no digest; put right what stands here, then repeat\n{lines}")


def _cores() -> int:
    """The cores that this process may use. In a Slurm step, these are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
