"""② The chain of events: every change of truth, each with the digest of the one before, also as provenance.jsonl.

The database is the record and the file its readable copy: lines are appended after the commit, and what a crash
kept from the file is appended by the next writer.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, bindparam, select, update

from ctcore.catalog.tables import event
from ctcore.digest import canonical, digest_value
from ctcore.errors import CatalogError

GENESIS = "0" * 64
_NONE = (0, GENESIS)  # what is before the first event
_BLOCK = 1 << 16
_FIELDS = ("seq", "at", "actor", "kind", "subject", "body", "previous")
_NEWEST = select(event.c.seq, event.c.digest).order_by(event.c.seq.desc()).limit(1)
_FROM = select(event).where(event.c.seq >= bindparam("first")).order_by(event.c.seq)
_APPEND = event.insert()


def append_events(connection: Connection, events: Sequence[tuple[str, str, str, Any]], at: str) -> list[dict[str, Any]]:
    """Chain and insert events (actor, kind, subject, body) in the caller's transaction, which holds the write lock.

    Returns them as they are in the catalog.
    """
    last = connection.execute(_NEWEST).first()
    seq, previous = (last.seq, last.digest) if last else _NONE
    rows = []
    for actor, kind, subject, body in events:
        seq += 1
        row = {
            "seq": seq,
            "at": at,
            "actor": actor,
            "kind": kind,
            "subject": subject,
            "body": canonical(body).decode(),
            "previous": previous,
        }
        previous = row["digest"] = event_digest(row)
        rows.append(row)
    connection.execute(_APPEND, rows)
    return rows


def event_digest(row: dict[str, Any]) -> str:
    """What the next event points to: everything of this one but its own digest."""
    return digest_value("ct.event.v1", {name: row[name] for name in _FIELDS})


@dataclass(frozen=True)
class Journal:
    """provenance.jsonl."""

    path: Path

    def is_behind(self, connection: Connection) -> bool:
        """Whether the file lacks events or ends in half a one, and this process may write it."""
        newest = connection.execute(_NEWEST).first()
        try:
            with self.path.open("rb") as stream:
                last, end = self._last(stream)
                torn = end < stream.seek(0, os.SEEK_END)
        except FileNotFoundError:
            return newest is not None and os.access(self.path.parent, os.W_OK)
        except OSError:
            return False
        return (torn or last != (tuple(newest) if newest else _NONE)) and os.access(self.path, os.W_OK)

    def follow(self, connect: Callable[[], Connection], committed: Sequence[dict[str, Any]] = ()) -> None:
        """Append the events that the file does not have yet. Several processes may do it at once.

        Where those that were `committed` a moment ago come next, the catalog is not asked for them.
        """
        try:
            with self.path.open("a+b") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                last, end = self._last(stream)
                stream.truncate(end)
                are_next = bool(committed) and last == (committed[0]["seq"] - 1, committed[0]["previous"])
                lines = [_line(row) for row in (committed if are_next else self._after(connect(), *last))]
                if lines:
                    stream.write(b"".join(lines))
                    stream.flush()
                    os.fsync(stream.fileno())
        except OSError as error:
            raise CatalogError(
                f"{self.path}: {error.strerror}; the catalog has the events, "
                "and the file gets them as soon as it can be written"
            ) from error

    def rewrite(self, connection: Connection) -> None:
        """Write all of it anew from the catalog: what was taken out there is taken out here.

        Who waits to append to the file of before does so in vain, and the next writer appends it to the new one.
        """
        part = self.path.with_name(f".{self.path.name}.new")
        try:
            with self.path.open("a+b") as before, part.open("wb") as stream:
                fcntl.flock(before, fcntl.LOCK_EX)
                rows = connection.execute(select(event).order_by(event.c.seq)).mappings()
                stream.writelines(_line(dict(row)) for row in rows)
                stream.flush()
                os.fsync(stream.fileno())
                os.replace(part, self.path)
        except OSError as error:
            raise CatalogError(f"{self.path}: {error.strerror}; the catalog has the events") from error

    def read(self) -> Iterator[dict[str, Any]]:
        """The events as the file has them, in its order."""
        with self.path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH)
            for number, line in enumerate(stream, 1):
                row = _event(line)
                if row is None:
                    raise CatalogError(f"{self.path} line {number} is not an event: {line[:60]!r}; {self._way_out}")
                yield row

    def unlike(self, connection: Connection) -> list[int]:
        """The numbers of its lines that are not the events of the catalog in their order. It may end before these do,
        or go on: somebody writes meanwhile. CatalogError where it cannot be read.
        """
        rows = map(dict, connection.execute(_FROM, {"first": 0}, execution_options={"yield_per": 10_000}).mappings())
        found, last = list[int](), GENESIS
        try:
            with self.path.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH)
                for number, line in enumerate(map(_event, stream), 1):
                    known = next(rows, None)
                    if known is None and line is not None and line["previous"] == last:
                        known = {**line, "digest": event_digest(line)}
                    if line is None or line != known:
                        found.append(number)
                    last = known["digest"] if known is not None else ""
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CatalogError(f"{self.path}: {error.strerror}; allow reading it") from error
        return found

    def _after(self, connection: Connection, seq: int, digest: str) -> list[dict[str, Any]]:
        """The events of the catalog after the file's last one, which it has to have too."""
        rows = [dict(row) for row in connection.execute(_FROM, {"first": seq}).mappings()]
        if seq == 0:
            return rows
        if not rows or rows[0]["seq"] != seq:
            raise CatalogError(
                f"{self.path} ends with event {seq}, which is not in the catalog: that is another one or an older "
                "one (a backup?). Restore the right catalog; `ct recover` makes a lost one again from this file; or "
                f"{self._way_out}"
            )
        if rows[0]["digest"] != digest:
            raise CatalogError(f"the catalog has another event {seq} than {self.path}; {self._way_out}")
        return rows[1:]

    def _last(self, stream: IO[bytes]) -> tuple[tuple[int, str], int]:
        """Number and digest of the last whole line, and where it ends; a line that a crash cut short is none."""
        start = size = stream.seek(0, os.SEEK_END)
        tail = b""
        while start > 0 and tail.count(b"\n") < 2:
            start = max(0, size - max(_BLOCK, 2 * len(tail)))
            stream.seek(start)
            tail = stream.read(size - start)
        whole, newline, rest = tail.rpartition(b"\n")
        if not newline:
            return _NONE, 0
        row = _event(whole.rpartition(b"\n")[2])
        if row is None:
            raise CatalogError(f"{self.path}: its last line is not an event; {self._way_out}")
        return (row["seq"], row["digest"]), size - len(rest)

    @property
    def _way_out(self) -> str:
        return f"move {self.path.name} away, and it is written anew from the catalog"


def _line(row: dict[str, Any]) -> bytes:
    """The body is canonical JSON already, and is put in as it is; inside a text, its mark would be escaped."""
    return canonical({**row, "body": None}).replace(b'"body":null', b'"body":' + row["body"].encode(), 1) + b"\n"


def _event(line: bytes) -> dict[str, Any] | None:
    """The row of a line; None where it is none."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or row.keys() != {*_FIELDS, "digest"} or not isinstance(row["seq"], int):
        return None
    return {**row, "body": canonical(row["body"]).decode()}


REDACTED = "redacted"
"""In the body of an event `purge`: what was taken out of earlier ones, as their number → the digest they have now."""


def redact(connection: Connection, bodies: Mapping[int, str]) -> dict[str, str]:
    """Give events other bodies. Returns what the event that says so has to list, so that the chain stays provable.

    An event keeps the digest that the next one points to; what it is now is vouched for by the event that lists it.
    """
    rows = connection.execute(select(event).where(event.c.seq.in_(bodies))).mappings()
    found = {str(row["seq"]): event_digest({**row, "body": bodies[row["seq"]]}) for row in rows}
    mine = update(event).where(event.c.seq == bindparam("b_seq"))
    if bodies:
        connection.execute(mine, [{"b_seq": seq, "body": body} for seq, body in bodies.items()])
    return found


def check_chain(rows: Iterator[dict[str, Any]], lines: str = "") -> list[str]:
    """What is wrong with a chain of events: every break, with its place. Empty where it is whole.

    `lines`: what to call the place of a row in a file.
    """
    problems: list[tuple[str, str, str]] = []
    listed: dict[str, str] = {}
    previous, expected = GENESIS, 1
    for number, row in enumerate(rows, 1):
        place = f"{lines} {number}: " if lines else ""
        where = f"{place}event {row['seq']} ({row['kind']} {row['subject']}, {row['at']})"
        if row["seq"] != expected:
            problems.append(("", "", f"{where}: event {expected} is missing before it"))
        elif row["previous"] != previous:
            problems.append(("", "", f"{where}: does not follow from the event before it"))
        if (now := event_digest(row)) != row["digest"]:
            problems.append((str(row["seq"]), now, f"{where}: was changed after it was written"))
        elif row["kind"] == "purge":
            listed |= json.loads(row["body"]).get(REDACTED, {})
        previous, expected = row["digest"], row["seq"] + 1
    return [said for seq, now, said in problems if now != listed.get(seq)]
