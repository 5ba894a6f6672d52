"""The chain of events: every change of truth, each with the digest of the one before; also in provenance.jsonl.

The database is the record and the file its readable copy. Lines are appended after the commit; if a crash prevents
that, the next writer appends them. If one of them is incomplete, `ct recover` completes it from the other. A witness in
the store knows how long both were.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import IO, Any

from sqlalchemy import Connection, bindparam, select, update

from ctcore.catalog.tables import event
from ctcore.catalog.witness import NAME, LastEvent, Witness
from ctcore.errors import CatalogError
from ctcore.model.masked_text import Part, Plain, QuotedText, Words
from ctcore.store.digest import canonical_json, digest_value
from ctcore.util import json_text
from ctcore.util.disk_errors import reason_of

GENESIS = "0" * 64
NONE = (0, GENESIS)  # what is before the first event
WAY = "`ct recover` brings back what either has, and throws nothing away; with --dry-run it only says what it finds"
_BLOCK = 1 << 16
_FIELDS = ("seq", "at", "actor", "kind", "subject", "body", "previous")
_TEXTS = ("at", "actor", "kind", "subject", "previous", "digest")
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_NEWEST = select(event.c.seq, event.c.digest).order_by(event.c.seq.desc()).limit(1)
_DIGEST = select(event.c.digest).where(event.c.seq == bindparam("seq"))
_FROM = select(event).where(event.c.seq >= bindparam("first")).order_by(event.c.seq)
_APPEND = event.insert()


def append_events(
    connection: Connection,
    events: Sequence[tuple[str, str, str, Any]],
    at: str,
    after: tuple[int, str] | None = None,
) -> list[dict[str, Any]]:
    """Chain and insert events (actor, kind, subject, body) in the caller's transaction, which holds the write lock.

    They follow the newest event, or one that is known and not there (`after`: its number and digest). Returns them as
    they are in the catalog.
    """
    seq, previous = after or last_event_of(connection)
    rows = []
    for actor, kind, subject, body in events:
        seq += 1
        row = {
            "seq": seq,
            "at": at,
            "actor": actor,
            "kind": kind,
            "subject": subject,
            "body": canonical_json(body).decode(),
            "previous": previous,
        }
        previous = row["digest"] = event_digest(row)
        rows.append(row)
    connection.execute(_APPEND, rows)
    return rows


def last_event_of(connection: Connection) -> tuple[int, str]:
    """Number and digest of the catalog's last event."""
    last = connection.execute(_NEWEST).first()
    return (last.seq, last.digest) if last else NONE


def event_digest(row: dict[str, Any]) -> str:
    """The digest that the next event refers to: of everything in this one except its own digest."""
    return digest_value("ct.event.v1", {name: row[name] for name in _FIELDS})


@dataclass(frozen=True)
class Journal:
    """provenance.jsonl."""

    path: Path
    mode: int = 0o660  # of the file, where it is made

    @property
    def witness(self) -> Witness:
        return Witness(self.path.parent / "store" / NAME)

    def has_diverged(self, connection: Connection) -> bool:
        """Whether catalog, file and witness do not end with the same event, or the file was changed: a few reads."""
        newest, seen = last_event_of(connection), self.witness.read()
        if seen is None and newest != NONE and self.witness.is_possible:
            return True
        try:
            last, end, size = self.end()
        except (OSError, CatalogError):
            return True
        return (last, end) != (newest, size) or (seen is not None and seen not in ((*last, end), (*last, 0)))

    def end(self) -> tuple[tuple[int, str], int, int]:
        """Number and digest of the last whole line, where it ends, and the size; of no file, as of an empty one."""
        try:
            with self._file.open("rb") as stream:
                return (*self._last(stream), stream.seek(0, os.SEEK_END))
        except FileNotFoundError:
            return NONE, 0, 0

    def edit_warning(self) -> str | None:
        """The error for a file whose size differs from that of its last event: somebody added, removed or changed
        lines."""
        seen = self.witness.read()
        try:
            last, end, _ = self.end()
        except (OSError, CatalogError):
            return None
        if seen is None or seen[:2] != last or seen.size in (0, end):
            return None
        return f"{self.path.name} had {seen.size} bytes with event {seen.seq}, and has {end}: it was edited; {WAY}"

    def last_known_event(self) -> int:
        """The number of the last event that file and witness know of; 0 where there is none."""
        seen = self.witness.read()
        try:
            last = self.end()[0][0]
        except CatalogError:  # something else behind it
            last = max((row["seq"] for _, _, row in self.lines() if row is not None), default=0)
        return max(last, seen.seq if seen else 0)

    def follow(
        self, connect: Callable[[], Connection], committed: Sequence[dict[str, Any]] = ()
    ) -> Sequence[dict[str, Any]]:
        """Append the events that the file lacks, and return them. Several processes may do it at once.

        If the events `committed` a moment ago come next, the catalog is not queried. CatalogError if the catalog lacks
        events of the file or the witness, or has other ones.
        """
        try:
            # Open for writing, although a writer with nothing to append only reads: on NFS, flock is a byte-range lock,
            # and LOCK_EX needs a file that is open for writing (flock(2), NFS details).
            with open(self._file, "a+b", opener=self._made) as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                last, end = self._last(stream)
                are_next = bool(committed) and last == (committed[0]["seq"] - 1, committed[0]["previous"])
                rows = committed if are_next else self._after(connect(), last)
                # Only here, under the lock: what looks like half a line may be another process's write that is not
                # finished.
                stream.truncate(end)  # half a line, which a crash left
                if rows:
                    stream.write(b"".join(map(event_line, rows)))
                    stream.flush()
                    os.fsync(stream.fileno())
                    last, end = (rows[-1]["seq"], rows[-1]["digest"]), stream.tell()
                # Catalog, file, witness, always in this order: what a later one has seen, an earlier one must have. So
                # a loss can be told from a write that was cut off (0022).
                if last != NONE and (rows or (self.witness.read() or NONE)[:2] != last):
                    self.witness.write(LastEvent(*last, end))
                return rows
        except OSError as error:
            if not committed and error.errno in _READ_ONLY:
                self._after(connect(), self.end()[0])
                return ()
            raise CatalogError(
                f"{self.path}: {reason_of(error)}; the catalog has the events, "
                "and the file gets them as soon as it can be written"
            ) from error

    def rewrite(self, connection: Connection) -> None:
        """Write the file anew from the catalog, so that it lacks whatever was removed there.

        A process that waits to append to the old file appends in vain; the next writer appends its events to the new
        one.
        """
        rows = connection.execute(select(event).order_by(event.c.seq)).mappings()
        self.replace(dict(row) for row in rows)

    def replace(self, rows: Iterable[dict[str, Any]]) -> None:
        """Have it consist of these events: all of it at once, or as before."""
        part = self.path.with_name(f".{self.path.name}.new")
        try:
            with open(self._file, "a+b", opener=self._made) as before, open(part, "wb", opener=self._made) as stream:
                fcntl.flock(before, fcntl.LOCK_EX)
                last = NONE
                for row in rows:
                    stream.write(event_line(row))
                    last = row["seq"], row["digest"]
                stream.flush()
                os.fsync(stream.fileno())
                if (seen := self.witness.read()) is not None:  # of another size for a moment
                    self.witness.write(seen._replace(size=0))
                os.replace(part, self.path)
                if last != NONE and (seen is None or last[0] >= seen.seq):
                    self.witness.write(LastEvent(*last, stream.tell()))
        except OSError as error:
            raise CatalogError(f"{self.path}: {reason_of(error)}; the catalog has the events") from error

    @property
    def _file(self) -> Path:
        """To be opened. CatalogError for a pipe, which would be waited for without end, or a folder."""
        with suppress(FileNotFoundError):
            if not S_ISREG(self.path.stat().st_mode):
                raise CatalogError(f"{self.path} is not a regular file: move it away, and {WAY}")
        return self.path

    def _made(self, path: str, flags: int) -> int:
        return os.open(path, flags, self.mode)

    def read(self) -> Iterator[dict[str, Any]]:
        """The events as the file has them, in its order. CatalogError at a line that is none."""
        for number, _, row in self.lines():
            if row is None:
                raise CatalogError(f"{self.path} line {number} is not an event; {WAY}")
            yield row

    def lines(self) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
        """Number, bytes and event of each line; None where it is no event, or half of one."""
        with self._file.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH)
            for number, line in enumerate(stream, 1):
                yield number, line, _event(line)

    def differing_lines(self, connection: Connection) -> list[int]:
        """The numbers of lines that are not the catalog's events in their order. The file may end earlier or go on,
        because somebody may be writing. CatalogError if it cannot be read."""
        rows = map(dict, connection.execute(_FROM, {"first": 0}, execution_options={"yield_per": 10_000}).mappings())
        found, last = list[int](), GENESIS
        try:
            with self._file.open("rb") as stream:
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
            raise CatalogError(f"{self.path}: {reason_of(error)}; allow reading it") from error
        return found

    def _after(self, connection: Connection, last: tuple[int, str]) -> list[dict[str, Any]]:
        """The events of the catalog after the file's last one, which it has to have too."""
        seen = self.witness.read()
        rows = [dict(row) for row in connection.execute(_FROM, {"first": last[0]}).mappings()]
        newest, name = last_event_of(connection), self.path.name
        if last[0] > newest[0]:
            raise CatalogError(
                f"the catalog lacks {event_range(newest[0] + 1, last[0])}, which {self.path} has: it is an older one "
                f"(a backup?), or has lost its end; {WAY}"
            )
        if last != NONE and (rows[0]["seq"], rows[0]["digest"]) != last:
            raise CatalogError(f"the catalog has another event {last[0]} than {self.path}; {WAY}")
        if seen is not None and seen.seq > newest[0]:
            both = f"catalog and {name} end" if last == newest else "the catalog ends"
            raise CatalogError(
                f"{both} with event {newest[0]}, and the store has seen event {seen.seq}: "
                f"{event_range(newest[0] + 1, seen.seq)} {'is' if seen.seq == newest[0] + 1 else 'are'} lost; {WAY}"
            )
        known = connection.execute(_DIGEST, {"seq": seen.seq}).scalar() if seen else None
        if seen is not None and known not in (None, seen.digest):  # none: it is known to be lost
            raise CatalogError(
                f"the catalog has another event {seen.seq} than the store has seen (is it another project's?); {WAY}"
            )
        return rows[1:] if last != NONE else rows

    def _last(self, stream: IO[bytes]) -> tuple[tuple[int, str], int]:
        """Number and digest of the last whole line, and where it ends; a line that a crash cut short is none."""
        start = size = stream.seek(0, os.SEEK_END)
        tail = b""
        while start > 0 and tail.count(b"\n") < 2:
            # Doubled until two ends of lines are in it: the registration of a whole cohort is one line.
            start = max(0, size - max(_BLOCK, 2 * len(tail)))
            stream.seek(start)
            tail = stream.read(size - start)
        whole, newline, rest = tail.rpartition(b"\n")
        if not newline:
            return NONE, 0
        row = _event(whole.rpartition(b"\n")[2])
        if row is None:
            raise CatalogError(f"{self.path}: its last line is not an event; {WAY}")
        return (row["seq"], row["digest"]), size - len(rest)


def event_range(first: int, last: int) -> str:
    """`event 4`, `events 4 to 6`."""
    return f"event {first}" if first == last else f"events {first} to {last}"


def event_line(row: dict[str, Any]) -> bytes:
    """An event as a line of the file.

    The body is canonical JSON already and is inserted unchanged; inside a text, its mark would be escaped.
    """
    return canonical_json({**row, "body": None}).replace(b'"body":null', b'"body":' + row["body"].encode(), 1) + b"\n"


def _event(line: bytes) -> dict[str, Any] | None:
    """The row of a line; None where it is none."""
    try:
        row = json_text.loads(line)
        if not isinstance(row, dict) or row.keys() != {*_FIELDS, "digest"} or type(row["seq"]) is not int:
            return None
        if not all(isinstance(row[name], str) for name in _TEXTS):
            return None
        return {**row, "body": canonical_json(row["body"]).decode()}
    except ValueError:
        return None


REDACTED = "redacted"
"""In the body of an event `purge`: what was taken out of earlier ones, as their number → the digest they have now. Also
of a `recover`, which put together what several purges took out of one."""
ACCEPTED = "lost"
"""In the body of an event `accept-loss`: numbers of events that nobody has (`47-49`) → MISSING; of events that were
changed → the digest they have now."""
MISSING = "missing"
_VOUCHES = {"purge": REDACTED, "recover": REDACTED, "accept-loss": ACCEPTED}


def vouched_digests(row: Mapping[str, Any]) -> dict[str, str]:
    """The digests of redacted events that this event vouches for."""
    name = _VOUCHES.get(row["kind"])
    found = json_text.loads(row["body"]).get(name, {}) if name else {}
    return found if isinstance(found, dict) else {}


def redact(connection: Connection, bodies: Mapping[int, str]) -> dict[str, str]:
    """Replace the bodies of events. Returns the list that the event about it must contain, so that the chain stays
    provable.

    A redacted event keeps the digest that the next one refers to; the event that lists it vouches for its new body.
    """
    rows = connection.execute(select(event).where(event.c.seq.in_(bodies))).mappings()
    found = {str(row["seq"]): event_digest({**row, "body": bodies[row["seq"]]}) for row in rows}
    mine = update(event).where(event.c.seq == bindparam("b_seq"))
    if bodies:
        connection.execute(mine, [{"b_seq": seq, "body": body} for seq, body in bodies.items()])
    return found


def check_chain(rows: Iterator[dict[str, Any]], lines: str = "") -> list[Words]:
    """Every break in a chain of events, with its place. Empty if the chain is whole.

    `lines`: the name of a row's place in a file.
    """
    problems: list[tuple[str, str, Words]] = []
    listed: dict[str, str] = {}
    previous, expected = GENESIS, 1
    for number, row in enumerate(rows, 1):
        place = f"{lines} {number}: " if lines else ""
        if row["seq"] != expected:
            last = max(expected, row["seq"] - 1)
            are = f"{event_range(expected, last)} {'is' if last == expected else 'are'}"
            problems.append((f"{expected}-{last}", MISSING, _of_event(place, row, Plain(f"{are} missing before it"))))
        elif row["previous"] != previous:
            problems.append(("", "", _of_event(place, row, "does not follow from the event before it")))
        if (now := event_digest(row)) != row["digest"]:
            problems.append((str(row["seq"]), now, _of_event(place, row, "was changed after it was written")))
        else:
            # Only an event that is whole vouches for others: an edited one could name itself.
            listed |= vouched_digests(row)
        previous, expected = row["digest"], row["seq"] + 1
    return [said for key, now, said in problems if unanswered({key: now}, listed)]


def _of_event(place: str, row: Mapping[str, Any], problem: Part) -> Words:
    """A problem of an event; whom the event is about is a sentence of its own."""
    about = Words(QuotedText(f"{row['kind']} {row['subject']}"))
    return Words(Plain(f"{place}event {row['seq']} ("), about, Plain(f", {row['at']}): "), problem)


def unanswered(found: Mapping[str, str], answered: Mapping[str, str]) -> dict[str, str]:
    """Of what is lost or changed what nobody answers for; both as `accept-loss` lists it. Of a stretch of lost events,
    the parts that were never accepted: others of it may have turned up since."""
    accepted = sorted(_stretch(key) for key, said in answered.items() if said == MISSING)
    left: dict[str, str] = {}
    for key, said in found.items():
        if said != MISSING:
            left |= {key: said} if answered.get(key) != said else {}
            continue
        at, end = _stretch(key)
        for first, last in (*accepted, (end + 1, end)):
            if at < first <= end + 1:
                left[f"{at}-{first - 1}"] = MISSING
            at = max(at, last + 1) if first <= end else at
    return left


def _stretch(key: str) -> tuple[int, int]:
    first, _, last = key.partition("-")
    return int(first), int(last)
