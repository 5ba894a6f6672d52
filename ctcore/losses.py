"""② What of the two records is lost or wrong: each of them beside the history that both prove together."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ctcore.agreement import compared
from ctcore.catalog.chain import event_digest, numbers
from ctcore.catalog.engine import HEAD, Catalog
from ctcore.catalog.pieces import History, Row, assembled
from ctcore.catalog.replay import Event, Replay
from ctcore.catalog.tables import event
from ctcore.errors import LostCatalog
from ctcore.purging.retold import as_purged

MOST = 10  # stretches of events that are listed
Form = tuple[str, str]
"""An event as one record has it: the digest by which the next one knows it, and the digest that it has."""


@dataclass
class Losses:
    """`catalog`: whether it can be read. `events` and `lines`: what each record has; `strays`: lines of the journal
    that are no event. `words`: all that is wrong, for people."""

    catalog: Literal["there", "damaged", "lost"]
    events: list[Row]
    lines: list[Row]
    strays: list[bytes]
    history: History
    words: list[str] = field(default_factory=list)
    is_catalog_whole: bool = False
    is_journal_whole: bool = False

    @property
    def replay(self) -> Replay:
        """The tables as this history says they are."""
        return Replay().take(Event(*(row[name] for name in Event._fields)) for row in self.history.rows).rooted()

    @property
    def left_out(self) -> tuple[list[Row], list[Row]]:
        """Of catalog and journal what is not of the history, but what a purge took out."""
        kept = {_form(row) for row in self.history.rows}
        gone = {one for one, _ in kept if (one, one) not in kept}  # redacted: what they said before goes
        return (
            [row for row in self.events if (form := _form(row)) not in kept and form[0] not in gone],
            [row for row in self.lines if (form := _form(row)) not in kept and form[0] not in gone],
        )


def losses(catalog: Catalog) -> Losses:
    """Compare everything; nothing is written. The catalog is as it was closed: it may not be there."""
    state, events, said = _events(catalog)
    lines, strays = _lines(catalog)
    seen = catalog.journal.witness.seen()
    found = Losses(state, events, lines, [line for _, line in strays], assembled([events, lines], seen and seen[:2]))
    found.history.rows = as_purged(found.history.rows)
    name, rows = catalog.journal.path.name, found.history.rows
    if state == "there":
        found.words += [f"the catalog {one}" for one in _flaws(events, rows)]
    else:
        found.words.append(f"the catalog {catalog.place} {said}")
    if not catalog.journal.path.exists() and rows:
        found.words.append(f"{name} is not there")
    elif rows:
        found.words += [f"{name} {one}" for one in _flaws(lines, rows)]
    found.words += [f"{name} line {number} {_of(line)}" for number, line in strays]
    if state != "there" and seen is None:
        found.history.more = True
        found.words.append(f"the store has no witness: nothing tells whether {name} has its end")
    found.is_journal_whole = not strays and lines == rows
    found.is_catalog_whole = state == "there" and events == rows
    if found.is_catalog_whole and catalog.version() == HEAD:
        _compare(catalog, found)
    if found.history.more and seen is not None:
        found.words.append(f"the store has seen another event {seen.seq}, which nobody has")
    found.words += list(_gone(found.history))
    return found


def _compare(catalog: Catalog, found: Losses) -> None:
    """The tables with the events: the catalog is whole if they agree."""
    try:
        with catalog.read() as connection:
            wrong = compared(connection)
        found.words += [f"{place}: {what}" for place, what in wrong]
        found.is_catalog_whole = not wrong
    except LostCatalog as error:
        found.catalog, found.is_catalog_whole = "damaged", False
        found.words.append(f"the catalog {catalog.place} is damaged: {_short(error)}")


def _events(catalog: Catalog) -> tuple[Literal["there", "damaged", "lost"], list[Row], str]:
    """The catalog's events as far as they can be read, and what is wrong with it."""
    try:
        if catalog.is_lost():
            return "lost", [], "is not there"
        if catalog.version() is None:
            return "there", [], ""
        with catalog.read() as connection:
            if catalog.is_sqlite:
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
    """What can still be read: from both ends to where it breaks, and one by one between."""
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


def _of(line: bytes) -> str:
    return "is no event" if line.endswith(b"\n") else "is half an event"


def _form(row: Row) -> Form:
    return row["digest"], event_digest(row)


def _flaws(rows: Sequence[Row], whole: Sequence[Row]) -> Iterator[str]:
    """What is wrong with one record, beside the whole."""
    if list(rows) == list(whole):
        return
    have, wanted = {_form(row) for row in rows}, {_form(row): row["seq"] for row in whole}
    mine, theirs = {digest for digest, _ in have}, {digest for digest, _ in wanted}
    lacks = [seq for (digest, _), seq in wanted.items() if digest not in mine]
    other = [seq for (digest, now), seq in wanted.items() if digest in mine and (digest, now) not in have]
    more = {row["seq"] for row in rows if row["digest"] not in theirs}
    if lacks:
        is_end = rows and min(lacks) > max(row["seq"] for row in rows)
        yield f"lacks {listed(lacks)}" + (", its end" if is_end else "")
    if other:
        yield f"has {listed(other)} otherwise than they were written"
    if more:
        yield f"has {listed(more)}, edited or of another history"
    if not (other or more) and [row["seq"] for row in rows] != sorted({row["seq"] for row in rows}):
        yield "has events out of order, or twice"


def _gone(history: History) -> Iterator[str]:
    unknown = history.unknown()
    for first, last in history.missing:
        if f"{first}-{last}" in unknown:
            yield f"{numbers(first, last)}: lost, in neither"
    if edited := [seq for seq in history.changed if str(seq) in unknown]:
        yield f"{listed(edited)}: only an edited copy is there"
    if history.others:
        by = sorted({f"{row['kind']} by {row['actor']}" for row in history.others})
        yield f"there is a second history: {listed({row['seq'] for row in history.others})} ({', '.join(by[:5])})"


def listed(seqs: Iterable[int]) -> str:
    """`events 1 to 3, 7 and 9`."""
    runs: list[list[int]] = []
    for seq in sorted(seqs):
        if runs and runs[-1][1] == seq - 1:
            runs[-1][1] = seq
        else:
            runs.append([seq, seq])
    if len(runs) == 1:
        return numbers(*runs[0])
    if len(runs) > MOST:
        return f"{sum(last - first + 1 for first, last in runs)} events, the first is {runs[0][0]}"
    parts = [str(first) if first == last else f"{first} to {last}" for first, last in runs]
    return f"events {', '.join(parts[:-1])} and {parts[-1]}"
