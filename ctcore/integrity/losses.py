"""Losses and errors in the catalog and the journal, each compared with the history that both prove together."""

import sqlite3
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ctcore.catalog.engine import HEAD, Catalog
from ctcore.catalog.event_log import MISSING, event_digest, event_range
from ctcore.catalog.merged_history import History, Row, merge_history
from ctcore.catalog.replay import Event, Replay
from ctcore.catalog.tables import event
from ctcore.deletion.redacted_events import Purges, redact_again
from ctcore.errors import LostCatalog
from ctcore.integrity.catalog_check import compare_catalog

MOST = 10  # ranges of events that a message lists
Form = tuple[str, str]
"""One copy of an event: the digest that the next event refers to, and the digest of its present content."""


@dataclass
class Losses:
    """`catalog`: whether it can be read. `events` and `lines`: the events of catalog and journal; `strays`: lines of
    the journal that are no event; `before`: unredacted copies of the events that are redacted now. `words`: all
    findings, for people."""

    catalog: Literal["there", "damaged", "lost"]
    events: list[Row]
    lines: list[Row]
    strays: list[bytes]
    history: History
    purges: Purges
    before: Mapping[int, Row]
    words: list[str] = field(default_factory=list)
    is_catalog_whole: bool = False
    is_journal_whole: bool = False
    has_other_bytes: bool = False

    @property
    def replay(self) -> Replay:
        """The tables that this history produces."""
        return (
            Replay().take(Event(*(row[name] for name in Event._fields)) for row in self.history.rows).without_orphans()
        )

    @property
    def redacted(self) -> dict[str, str]:
        """Events that two purges redacted without knowing of each other → their digest with both redactions. No event
        vouches for that digest yet."""
        forms = ((row["seq"], *_form(row)) for row in self.history.rows if row["seq"] in self.purges.listed)
        both = {seq: now for seq, digest, now in forms if now not in (digest, self.purges.listed[seq])}
        return {str(seq): now for seq, now in both.items() if seq not in self.history.changed}

    @property
    def vouched(self) -> Iterator[Row]:
        """The history with the digests that its own events vouch for: each purge's redaction by itself."""
        half = {int(seq) for seq in self.redacted}
        return (self.before[row["seq"]] if row["seq"] in half else row for row in self.history.rows)

    @property
    def left_out(self) -> tuple[list[Row], list[Row]]:
        """Rows of catalog and journal that the history does not contain, except those that a purge redacted."""
        kept = {_form(row) for row in self.history.rows}
        gone = {one for one, _ in kept if (one, one) not in kept}  # redacted: no unredacted copy is kept
        return (
            [row for row in self.events if (form := _form(row)) not in kept and form[0] not in gone],
            [row for row in self.lines if (form := _form(row)) not in kept and form[0] not in gone],
        )


def losses(catalog: Catalog) -> Losses:
    """Compare catalog and journal, and write nothing. The catalog may be missing."""
    state, events, said = _events(catalog)
    lines, strays = _lines(catalog)
    seen = catalog.journal.witness.read()
    history = merge_history([events, lines], seen and seen[:2])
    told = Purges.from_events((row["seq"], row["kind"], row["body"]) for row in history.rows)
    assembled_rows = history.rows
    history.rows = rows = redact_again(assembled_rows, told)
    before = {one["seq"]: one for one, now in zip(assembled_rows, rows, strict=True) if one is not now}
    history.changed |= {row["seq"]: event_digest(row) for row in rows if row["seq"] in history.changed}
    found = Losses(state, events, lines, [line for _, line in strays], history, told, before)
    name, both = catalog.journal.path.name, set(map(int, found.redacted))
    if state == "there":
        found.words += [f"the catalog {one}" for one in _flaws(events, rows, both)]
    else:
        found.words.append(f"the catalog {catalog.place} {said}")
    if not catalog.journal.path.exists() and rows:
        found.words.append(f"{name} is missing")
    elif rows:
        found.words += [f"{name} {one}" for one in _flaws(lines, rows, both)]
    found.words += [f"{name} line {number} {_stray_problem(line)}" for number, line in strays]
    if state != "there" and seen is None:
        found.history.more = True
        found.words.append(f"the store has no witness, so ct cannot tell whether the end of {name} is missing")
    if lines == rows and not strays and catalog.journal.edit_warning() is not None:
        found.words.append(f"{name} has other bytes than ct wrote")
        found.has_other_bytes = True
    found.is_journal_whole = not strays and lines == rows and not found.has_other_bytes
    found.is_catalog_whole = state == "there" and events == rows
    if found.is_catalog_whole and catalog.version() == HEAD:
        _compare(catalog, found)
    if found.history.more and seen is not None:
        found.words.append(f"the store's witness saw another event {seen.seq}, which is in neither record")
    found.words += list(_lost_events(found.history))
    for number, said in told.numbers.news.items():
        found.words.append(
            f"events {told.numbers.begun[said]} and {told.numbers.begun[number]} both record a purge {said}: the "
            f"later one becomes purge {number}"
        )
    return found


def _compare(catalog: Catalog, found: Losses) -> None:
    """Compare the tables with the events: the catalog is whole if they agree."""
    try:
        with catalog.read() as connection:
            wrong = compare_catalog(connection)
        found.words += [f"{place}: {what}" for place, what in wrong]
        found.is_catalog_whole = not wrong
    except LostCatalog as error:
        found.catalog, found.is_catalog_whole = "damaged", False
        found.words.append(f"the catalog {catalog.place} is damaged: {_short(error)}")


def _events(catalog: Catalog) -> tuple[Literal["there", "damaged", "lost"], list[Row], str]:
    """State of the catalog, the events that can be read, and what is wrong with it."""
    try:
        if catalog.is_lost():
            return "lost", [], "is missing"
        if catalog.version() is None:
            return "there", [], ""
        with catalog.read() as connection:
            if catalog.is_sqlite:
                # quick_check leaves out whether indexes agree with their tables, for which integrity_check takes much
                # longer (sqlite.org/pragma.html); 1: the first problem is enough.
                said = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
                if said != "ok":
                    return "damaged", _salvaged(connection), f"is damaged: {str(said).splitlines()[-1]}"
            rows = connection.execute(select(event).order_by(event.c.seq)).mappings()
            return "there", [dict(row) for row in rows], ""
    except LostCatalog as error:
        with suppress(SQLAlchemyError, sqlite3.Error), catalog.engine.connect() as connection:
            return "damaged", _salvaged(connection), f"is damaged: {_short(error)}"
        return "damaged", [], f"is damaged: {_short(error)}"


def _short(error: LostCatalog) -> str:
    cause = error.__cause__
    said = cause.orig if isinstance(cause, DBAPIError) else error
    return str(said).strip().splitlines()[0]


def _salvaged(connection: Connection) -> list[Row]:
    """Events that can still be read: from both ends up to the damage, then one by one between."""
    found: dict[int, Row] = {}
    for order in (event.c.seq.asc(), event.c.seq.desc()):
        with suppress(SQLAlchemyError, sqlite3.Error, ValueError):
            for row in connection.execute(select(event).order_by(order)).mappings():
                found[row["seq"]] = dict(row)
    for seq in sorted(set(range(1, max(found, default=0))) - found.keys()):
        with suppress(SQLAlchemyError, sqlite3.Error, ValueError):
            row = connection.execute(select(event).where(event.c.seq == seq)).mappings().first()
            if row is not None:
                found[seq] = dict(row)
    texts = [column.name for column in event.columns if column.name != "seq"]
    rows = [found[seq] for seq in sorted(seq for seq in found if isinstance(seq, int))]
    return [row for row in rows if all(isinstance(row[name], str) for name in texts)]


def _lines(catalog: Catalog) -> tuple[list[Row], list[tuple[int, bytes]]]:
    rows: list[Row] = []
    strays: list[tuple[int, bytes]] = []
    with suppress(FileNotFoundError):
        for number, line, row in catalog.journal.lines():
            if row is None:
                strays.append((number, line))
            else:
                rows.append(row)
    return rows, strays


def _stray_problem(line: bytes) -> str:
    return "is not an event" if line.endswith(b"\n") else "is only part of an event"


def _form(row: Row) -> Form:
    return row["digest"], event_digest(row)


def _flaws(rows: Sequence[Row], whole: Sequence[Row], both: Container[int]) -> Iterator[str]:
    """How one record differs from the whole history. `both`: see `Losses.redacted`."""
    if list(rows) == list(whole):
        return
    have, wanted = {_form(row) for row in rows}, {_form(row): row["seq"] for row in whole}
    before = {row["seq"] for row in rows if _form(row) == (row["digest"], row["digest"])}
    mine, theirs = {digest for digest, _ in have}, {digest for digest, _ in wanted}
    lacks = [seq for (digest, _), seq in wanted.items() if digest not in mine]
    other = [seq for (digest, now), seq in wanted.items() if digest in mine and (digest, now) not in have]
    unpurged = [seq for seq in other if seq in before]
    half = [seq for seq in other if seq not in before and seq in both]
    other = [seq for seq in other if seq not in before and seq not in both]
    more = {row["seq"] for row in rows if row["digest"] not in theirs}
    if lacks:
        is_end = rows and min(lacks) > max(row["seq"] for row in rows)
        yield f"lacks {event_ranges(lacks)}" + (", its end" if is_end else "")
    if unpurged:
        yield f"has {event_ranges(unpurged)} as they were before a purge redacted them"
    if half:
        yield f"has {event_ranges(half)} with the redactions of one purge, but not of another"
    if other:
        yield f"has edited copies of {event_ranges(other)}"
    if more:
        yield f"has {event_ranges(more)}, edited or from another history"
    if not (other or unpurged or half or more) and [row["seq"] for row in rows] != sorted({row["seq"] for row in rows}):
        yield "has events in the wrong order, or twice"


def _lost_events(history: History) -> Iterator[str]:
    unknown = history.unknown()
    for key in (key for key, said in unknown.items() if said == MISSING):
        yield f"{event_range(*map(int, key.split('-')))}: lost from both records"
    if edited := [seq for seq in history.changed if str(seq) in unknown]:
        yield f"{event_ranges(edited)}: only an edited copy exists"
    if history.others:
        by = sorted({f"{row['kind']} by {row['actor']}" for row in history.others})
        yield f"a second history exists: {event_ranges({row['seq'] for row in history.others})} ({', '.join(by[:5])})"


def event_ranges(seqs: Iterable[int]) -> str:
    """`events 1 to 3, 7 and 9`."""
    runs: list[list[int]] = []
    for seq in sorted(seqs):
        if runs and runs[-1][1] == seq - 1:
            runs[-1][1] = seq
        else:
            runs.append([seq, seq])
    if len(runs) == 1:
        return event_range(*runs[0])
    if len(runs) > MOST:
        return f"{sum(last - first + 1 for first, last in runs)} events, the first is {runs[0][0]}"
    parts = [str(first) if first == last else f"{first} to {last}" for first, last in runs]
    return f"events {', '.join(parts[:-1])} and {parts[-1]}"
