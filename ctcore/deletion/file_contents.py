"""Finds a purged person's data in one file: in archives, copies of the catalog and its journal, and sidecars.

It does not recognize data that is encrypted, encoded or changed, nor values without a recorded digest.
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

from ctcore.catalog.event_log import event_digest
from ctcore.deletion.dagster_storage import Rows, Schema
from ctcore.deletion.purged_digests import PurgedContent
from ctcore.store.digest import canonical_json

Takes = Callable[[Any, Any], bool]  # (members, inputs) of a call → whether the call used the person's data

_HEAD = 1 << 16
_DEEP = 4  # archives in archives
# Bounded, because kilobytes of an archive may unpack to terabytes.
_MOST = 8 << 30  # bytes of one file, unpacked
_UNPACKED = 1 << 30  # of a database in an archive
_PARSED = 64 << 20  # of a JSON document
_PACKED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream, mode="rb"),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
# The magic numbers of a write-ahead log, for each order of bytes in its checksums (sqlite.org/fileformat2.html, 4.1).
_LOG = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")  # of SQLite
_DATABASE = b"SQLite format 3\0"
_EVENT = b'{"actor":'
_BROKEN = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)


_OLD = "is an old copy of the catalog, with values that a purge removed"
MAYBE = "is a write-ahead log of SQLite without its database, and may hold any row of it"
_BEGIN = 1 << 20  # bytes of a text that are searched for an event; a text with an event is read to its end
_LEAST, _BEST = 0.9, 1100  # least and greatest ratio of unpacked to packed bytes; deflate ends at 1032:1


class _TooMuch(Exception):
    """The file holds more bytes than the limit for one file."""


class Contents:
    """Describes what a file holds of the person."""

    def __init__(self, wanted: PurgedContent, takes: Takes) -> None:
        self.wanted, self.takes = wanted, takes
        self._left = _MOST

    def of(self, path: str) -> list[str]:
        """What the file holds, each finding once; OSError where it cannot be read completely."""
        self._left = max(_MOST, 2 * self.wanted.largest)
        with open(path, "rb") as stream:
            try:
                return list(dict.fromkeys(self._in(stream, path, 0)))
            except _TooMuch:
                raise OSError(errno.EFBIG, "it unpacks to more bytes than ct reads of one file") from None

    def _in(self, stream: IO[bytes], path: str, depth: int, most: int = 0) -> Iterator[str]:
        """`most`: largest size in bytes at which the stream may equal a searched file; 0: it cannot."""
        head = stream.read(_HEAD)
        if depth and most and (what := self._same_bytes(stream, head, most)) is not None:
            yield f"has the bytes of {what}"
        stream.seek(0)
        opener = next((opener for sign, opener in _PACKED.items() if head.startswith(sign)), None)
        try:
            # tar has its mark behind the fields of the first header, at 257 (POSIX, pax: ustar interchange format).
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
            return  # the signature was misleading: the file has another format

    def _same_bytes(self, stream: IO[bytes], head: bytes, most: int) -> str | None:
        """The searched file whose bytes a packed file has; None where it has other bytes."""
        hasher, size, part = blake3(), 0, head
        while part and size <= most:
            hasher.update(part)
            size += len(part)
            part = self._read(stream, _HEAD)
        return self.wanted.description_of(hasher.hexdigest()) if size in self.wanted.sizes and not part else None

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
        """The largest searched size that can compress to `packed` bytes; 0: none."""
        sizes = (one for one in self.wanted.sizes if _LEAST * packed - _HEAD <= one <= _BEST * packed)
        return max(sizes, default=0)

    # Texts

    def _text(self, stream: IO[bytes], head: bytes) -> Iterator[str]:
        if head.lstrip()[:1] in (b"{", b"["):
            said = _parsed(self._read(stream, _PARSED))
            if self._is_theirs(said):
                yield "names the patient's IDs"
            stream.seek(0)
        read, is_journal = 0, False
        while (is_journal or read < _BEGIN) and (line := stream.readline(_PARSED if is_journal else _BEGIN)):
            read += len(line)
            if line.startswith(_EVENT):
                is_journal = True
                line += b"" if line.endswith(b"\n") else stream.readline(_PARSED)
                if self._is_redacted(_parsed(line)):
                    yield "is an old copy of the events, with values that a purge removed"
                    return

    def _is_theirs(self, said: Any) -> bool:
        """Whether a JSON document is of the person: sidecars, calls and results by node, members and inputs; archived
        code by the IDs in it."""
        if not isinstance(said, dict):
            return False
        if {"source", "declaration"} <= said.keys():
            return bool(self.wanted.any_id.search(json.dumps(said, ensure_ascii=False)))
        node = said.get("node")
        is_own = isinstance(node, list) and len(node) == 2 and node[1] in self.wanted.ids and "key" in said
        try:
            return is_own or self.takes(said.get("members"), said.get("edges") or said.get("inputs"))
        except (TypeError, LookupError):
            return False

    def _is_redacted(self, row: Any) -> bool:
        """Whether it is an unredacted copy of an event of this chain that a purge redacted."""
        if not isinstance(row, dict) or row.get("digest") not in self.wanted.chain:
            return False
        try:
            body = row["body"] if isinstance(row["body"], str) else canonical_json(row["body"]).decode()
            return event_digest({**row, "body": body}) != self.wanted.events[row["seq"]]
        except (KeyError, TypeError, ValueError):
            return True

    # Databases

    def _database(self, stream: IO[bytes], path: str, depth: int) -> Iterator[str]:
        if depth:
            whole = bytearray(self._read(stream, _UNPACKED))
            whole[18:20] = b"\1\1"  # clears the mark for write-ahead logging: a database in memory cannot have a log
            connection = sqlite3.connect(":memory:")
            connection.deserialize(whole)
        else:
            connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=30)
        try:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if {"event", "entity"} <= tables and self._is_old(connection):
                yield _OLD
            yield from self.wanted.dagster_nodes.words(connection, tables)
        except sqlite3.Error as error:
            if "no such" in str(error):  # a database of another program with the same table names
                return
            raise OSError(f"SQLite cannot read this database: {error}") from error
        finally:
            connection.close()

    def of_schema(self, schema: Schema) -> list[str]:
        """What a schema of PostgreSQL holds: an old catalog that a recovery set aside, or Dagster's storage."""
        tables = schema.tables
        old = {"event", "entity"} <= tables and self._is_old(schema)
        return [_OLD] * old + self.wanted.dagster_nodes.words(schema, tables)

    def _is_old(self, connection: Rows) -> bool:
        names = ("seq", "at", "actor", "kind", "subject", "body", "previous", "digest")
        rows = connection.execute(f"SELECT {', '.join(names)} FROM event")
        if any(self._is_redacted(dict(zip(names, row, strict=True))) for row in rows):
            return True
        rows = connection.execute("SELECT level, id FROM entity WHERE attributes != '{}'")
        return any(tuple(row) in self.wanted.own for row in rows)


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
