"""⑥ What is in one file, as far as it is of a purged person: archives, copies of the catalog and its journal, sidecars.

What is encrypted, encoded or changed is not known again; nor are values that nobody recorded a digest of.
"""

import bz2
import errno
import gzip
import json
import lzma
import os
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any
from urllib.parse import quote

from blake3 import blake3

from ctcore.catalog.chain import event_digest
from ctcore.digest import canonical
from ctcore.purging.wanted import Wanted

Takes = Callable[[Any, Any], bool]  # members and inputs: whether they are the person's

_HEAD = 1 << 16
_DEEP = 4  # archives in archives
_MOST = 8 << 30  # bytes of one file, unpacked
_UNPACKED = 1 << 30  # of a database in an archive
_PARSED = 64 << 20  # of a JSON document
_PACKED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream, mode="rb"),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
_LOG = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")  # of SQLite
_DATABASE = b"SQLite format 3\0"
_EVENT = b'{"actor":'
_BROKEN = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)


MAYBE = "is a log of SQLite beside no database, and may have any row of one"
_BEGIN = 1 << 20  # bytes of a text in which an event is looked for; where there is one, all of it is read
_LEAST, _BEST = 0.9, 1100  # of packed bytes, how many unpacked ones there are at least, and at most (zlib's own limit)


class _TooMuch(Exception):
    """More than is read of one file."""


class Contents:
    """Says of a file what in it is of the person."""

    def __init__(self, wanted: Wanted, takes: Takes) -> None:
        self.wanted, self.takes = wanted, takes
        self._left = _MOST

    def of(self, path: str) -> list[str]:
        """What the file has, once each; OSError where it cannot be read, or not whole."""
        self._left = max(_MOST, 2 * self.wanted.largest)
        with open(path, "rb") as stream:
            try:
                return list(dict.fromkeys(self._in(stream, path, 0)))
            except _TooMuch:
                raise OSError(errno.EFBIG, "more is packed in it than is read of one file") from None

    def _in(self, stream: IO[bytes], path: str, depth: int, most: int = 0) -> Iterator[str]:
        """`most`: so many bytes it has at most, where it may have the bytes of a file that is looked for."""
        head = stream.read(_HEAD)
        if depth and most and (what := self._same_bytes(stream, head, most)) is not None:
            yield f"has the bytes of {what}"
        stream.seek(0)
        opener = next((opener for sign, opener in _PACKED.items() if head.startswith(sign)), None)
        try:
            if opener is not None or head[257:262] == b"ustar" or head.startswith(b"PK\x03\x04"):
                if depth < _DEEP:
                    yield from self._packed(stream, head, opener, depth)
            elif head.startswith(_DATABASE):
                yield from self._database(stream, path, depth)
            elif head.startswith(_LOG):
                if not os.path.exists(path.removesuffix("-wal")) or not path.endswith("-wal"):
                    yield MAYBE
            elif b"\0" not in head[:4096]:
                yield from self._text(stream, head)
        except _BROKEN as error:
            if isinstance(error.__cause__, sqlite3.Error):
                raise
            return  # it is something else than it seems to be

    def _same_bytes(self, stream: IO[bytes], head: bytes, most: int) -> str | None:
        """Of what a packed file has the bytes."""
        hasher, size, part = blake3(), 0, head
        while part and size <= most:
            hasher.update(part)
            size += len(part)
            part = self._read(stream, _HEAD)
        return self.wanted.what(hasher.hexdigest()) if size in self.wanted.sizes and not part else None

    def _read(self, stream: IO[bytes], most: int) -> bytes:
        part = stream.read(most)
        self._left -= len(part)
        if self._left < 0:
            raise _TooMuch
        return part

    def _packed(self, stream: IO[bytes], head: bytes, opener: Any, depth: int) -> Iterator[str]:
        if opener is not None:
            most = self.wanted.largest if depth else self._near(os.fstat(stream.fileno()).st_size)
            with opener(stream) as inner:
                yield from self._in(inner, "", depth + 1, most)
        elif head[257:262] == b"ustar":
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for one in archive:
                    if one.isfile() and (inner := archive.extractfile(one)) is not None:
                        yield from self._in(inner, "", depth + 1, self._wanted(one.size))
        else:
            with zipfile.ZipFile(stream) as archive:
                for info in archive.infolist():
                    with archive.open(info) as inner:
                        yield from self._in(inner, "", depth + 1, self._wanted(info.file_size))

    def _wanted(self, size: int) -> int:
        return size if size in self.wanted.sizes else 0

    def _near(self, packed: int) -> int:
        """The largest size that is looked for and can be packed to so many bytes."""
        sizes = (one for one in self.wanted.sizes if _LEAST * packed - _HEAD <= one <= _BEST * packed)
        return max(sizes, default=0)

    # Texts

    def _text(self, stream: IO[bytes], head: bytes) -> Iterator[str]:
        if head.lstrip()[:1] in (b"{", b"["):
            said = _parsed(self._read(stream, _PARSED))
            if self._is_theirs(said):
                yield "is of the patient, by the IDs in it"
            stream.seek(0)
        read, is_journal = 0, False
        while (is_journal or read < _BEGIN) and (line := stream.readline(_PARSED if is_journal else _BEGIN)):
            read += len(line)
            if line.startswith(_EVENT):
                is_journal = True
                line += b"" if line.endswith(b"\n") else stream.readline(_PARSED)
                if self._is_redacted(_parsed(line)):
                    yield "is an old copy of the events: it says what was taken out of them"
                    return

    def _is_theirs(self, said: Any) -> bool:
        """Sidecars, calls and results, by node, members and inputs; kept code, by the IDs that it names."""
        if not isinstance(said, dict):
            return False
        if {"source", "declaration"} <= said.keys():
            return bool(self.wanted.any_id.search(json.dumps(said, ensure_ascii=False)))
        node = said.get("node")
        is_own = isinstance(node, list) and len(node) == 2 and node[1] in self.wanted.ids and "key" in said
        try:
            return is_own or self.takes(said.get("members"), said.get("inputs") or said.get("edges"))
        except (TypeError, LookupError):
            return False

    def _is_redacted(self, row: Any) -> bool:
        """Whether it is an event of this chain, as it was before a purge."""
        if not isinstance(row, dict) or row.get("digest") not in self.wanted.chain:
            return False
        try:
            body = row["body"] if isinstance(row["body"], str) else canonical(row["body"]).decode()
            return event_digest({**row, "body": body}) != self.wanted.events[row["seq"]]
        except (KeyError, TypeError, ValueError):
            return True

    # Databases

    def _database(self, stream: IO[bytes], path: str, depth: int) -> Iterator[str]:
        if depth:
            whole = bytearray(self._read(stream, _UNPACKED))
            whole[18:20] = b"\1\1"  # without a log beside it: one in memory has none
            connection = sqlite3.connect(":memory:")
            connection.deserialize(whole)
        else:
            connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=30)
        try:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if {"event", "entity"} <= tables and self._is_old(connection):
                yield "is an old copy of the catalog: it says what was taken out of it"
            yield from self.wanted.told.words(connection)
        except sqlite3.Error as error:
            if "no such" in str(error):  # tables of the same names, of somebody else
                return
            raise OSError(f"it is a database of SQLite, and cannot be read: {error}") from error
        finally:
            connection.close()

    def _is_old(self, connection: sqlite3.Connection) -> bool:
        names = ("seq", "at", "actor", "kind", "subject", "body", "previous", "digest")
        rows = connection.execute(f"SELECT {', '.join(names)} FROM event")
        if any(self._is_redacted(dict(zip(names, row, strict=True))) for row in rows):
            return True
        rows = connection.execute("SELECT level, id FROM entity WHERE attributes != '{}'")
        return any(row in self.wanted.own for row in rows)


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
