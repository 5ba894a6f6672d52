"""② The chain of events: every change of truth, each with the digest of the one before, also as provenance.jsonl.

The database is the record and the file its readable copy: lines are appended after the commit, and what a crash
kept from the file is appended by the next writer.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from ctcore.catalog.tables import event
from ctcore.clock import now
from ctcore.digest import canonical, digest_value
from ctcore.errors import CatalogError

GENESIS = "0" * 64
_FIELDS = ("seq", "at", "actor", "kind", "subject", "body", "previous")


def append_events(connection: Connection, actor: str, events: Sequence[tuple[str, str, Any]]) -> None:
    """Chain and insert events inside the caller's transaction, which holds the write lock."""
    last = connection.execute(select(event.c.seq, event.c.digest).order_by(event.c.seq.desc()).limit(1)).first()
    seq, previous = (last.seq, last.digest) if last else (0, GENESIS)
    rows = []
    for kind, subject, body in events:
        seq += 1
        row = {
            "seq": seq,
            "at": now(),
            "actor": actor,
            "kind": kind,
            "subject": subject,
            "body": canonical(body).decode(),
            "previous": previous,
        }
        previous = row["digest"] = event_digest(row)
        rows.append(row)
    connection.execute(event.insert(), rows)


def event_digest(row: dict[str, Any]) -> str:
    """What the next event points to: everything of this one but its own digest."""
    return digest_value("ct.event.v1", {name: row[name] for name in _FIELDS})


@dataclass(frozen=True)
class Journal:
    """provenance.jsonl."""

    path: Path

    def follow(self, connection: Connection) -> None:
        """Append the events that the file does not have yet. Several processes may do it at once."""
        try:
            with self.path.open("a+b") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                last = _last_seq(stream)
                rows = connection.execute(select(event).where(event.c.seq > last).order_by(event.c.seq)).mappings()
                lines = [_line(dict(row)) for row in rows]
                if lines:
                    stream.write(b"".join(lines))
                    stream.flush()
                    os.fsync(stream.fileno())
        except OSError as error:
            raise CatalogError(
                f"{self.path}: {error.strerror}; the catalog has the events, "
                "and the file gets them as soon as it can be written"
            ) from error

    def read(self) -> Iterator[dict[str, Any]]:
        """The events as the file has them, in its order."""
        with self.path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    row = json.loads(line)
                except ValueError:
                    raise CatalogError(f"{self.path} line {number} is not JSON: {line[:60]!r}") from None
                row["body"] = canonical(row["body"]).decode()
                yield row


def _line(row: dict[str, Any]) -> bytes:
    """The body is canonical JSON already, and is put in as it is; inside a text, its mark would be escaped."""
    return canonical({**row, "body": None}).replace(b'"body":null', b'"body":' + row["body"].encode(), 1) + b"\n"


def _last_seq(stream: Any) -> int:
    """The last whole line's number; a line that a crash cut short is cut off."""
    end = stream.seek(0, os.SEEK_END)
    step, tail = 1 << 16, b""
    while end > 0:
        start = max(0, end - step)
        stream.seek(start)
        tail = stream.read(end - start) + tail
        end = start
        if tail.count(b"\n") >= 2 or start == 0:
            break
    whole, cut, rest = tail.rpartition(b"\n")
    if rest:
        stream.truncate(stream.seek(0, os.SEEK_END) - len(rest))
        stream.seek(0, os.SEEK_END)
    if not cut:
        return 0
    return int(json.loads(whole.rpartition(b"\n")[2])["seq"])


def check_chain(rows: Iterator[dict[str, Any]]) -> list[str]:
    """What is wrong with a chain of events: every break, with its place. Empty where it is whole."""
    problems, previous, expected = [], GENESIS, 1
    for row in rows:
        where = f"event {row['seq']} ({row['kind']} {row['subject']}, {row['at']})"
        if row["seq"] != expected:
            problems.append(f"{where}: event {expected} is missing before it")
        elif row["previous"] != previous:
            problems.append(f"{where}: does not follow from the event before it")
        if event_digest(row) != row["digest"]:
            problems.append(f"{where}: was changed after it was written")
        previous, expected = row["digest"], row["seq"] + 1
    return problems
