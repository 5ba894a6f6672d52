"""`ct recover`: restores catalog and provenance.jsonl from each other, from the store and from its witness.

What cannot be restored is reported and recorded in the chain. Until a person accepts such a loss, ct uses nobody's
data, because a lost event may have ended a consent. Nothing is deleted: unused records move to `set-aside/`.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, func, select, text

from ctcore.catalog.engine import HEAD, Catalog, Writer
from ctcore.catalog.event_log import ACCEPTED, REDACTED, append_events, event_line, last_event_of
from ctcore.catalog.lost_inputs import makings_of_lost_inputs
from ctcore.catalog.merged_history import Row
from ctcore.catalog.migrations import upgrade
from ctcore.catalog.ownership import HELD, held_text, set_aside_prefix, settings_of
from ctcore.catalog.purge_numbers import NUMBERS
from ctcore.catalog.registered_again import write_what_waited
from ctcore.catalog.row_numbers import FREE, left_free, next_number, setting_of
from ctcore.catalog.schema_triggers import applied_schema, enforce, relax
from ctcore.catalog.tables import entity, event, setting
from ctcore.catalog.tombstones import purge_words
from ctcore.catalog.witness import LastEvent
from ctcore.errors import CatalogError, LostCatalog, Usage
from ctcore.governance.access import GIVEN, hidden_ids_of_rows
from ctcore.governance.consent import bar_again
from ctcore.integrity.catalog_check import compare_catalog
from ctcore.integrity.losses import Losses, event_ranges, losses
from ctcore.integrity.rebuild import Makings, makings, rewrite
from ctcore.model.levels import ENTITY_LEVELS, count_text
from ctcore.model.node import name_of
from ctcore.model.schema import ID_PATTERN
from ctcore.project import Project
from ctcore.store.digest import canonical_json
from ctcore.util import json_text
from ctcore.util.atomic_file import sync
from ctcore.util.clock import today

ASIDE = "set-aside"
SHOWN = 20  # findings that are listed
_TRIES = 3  # attempts while other processes write


@dataclass(frozen=True)
class Recovery:
    """What was wrong (`found`) and what was done about it, or would be; how much there is again. Makings that have no
    files any more (`lost`, or with the words of the purge that removed them), and those with others in their place
    since (`replaced`), are not in the ledger; `unsure` others were made from such. `left` does not fit together.
    `held`: why nobody is used. `hidden`: the IDs, by level, of those whom nobody sees by this history; `everybody`: all
    IDs, which nobody sees while it is held."""

    events: int
    makings: int
    lost: tuple[str, ...] = ()
    purged: tuple[tuple[str, str], ...] = ()
    replaced: tuple[str, ...] = ()
    left: tuple[tuple[str, str], ...] = ()
    found: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    unsure: int = 0
    held: str | None = None
    hidden: Mapping[str, AbstractSet[str]] = field(default_factory=dict)
    everybody: Mapping[str, AbstractSet[str]] = field(default_factory=dict)


def first_lines(words: Sequence[str]) -> list[str]:
    """The first `SHOWN` lines, and the number of further ones."""
    return [*words[:SHOWN], *([f"… and {len(words) - SHOWN} more"] if len(words) > SHOWN else [])]


class _OthersWrote(Exception):
    """Another process has written events meanwhile."""


def recover(project: Project, *, dry_run: bool = False) -> Recovery:
    """Restore both records from each other, the store and its witness. Writes nothing where nothing is lost, or where
    nothing can be restored."""
    catalog = project.closed_catalog()
    try:
        if dry_run:
            return _Recovery(project, catalog, losses(_own(catalog))).planned()
        with _locked(project):
            for _ in range(_TRIES):
                found = losses(_own(catalog, up_to_date=True))
                try:
                    return _Recovery(project, catalog, found).done()
                except _OthersWrote:
                    continue
            raise CatalogError("other processes keep writing events; stop `ct dev` and `ct run`, then `ct recover`")
    finally:
        catalog.engine.dispose()


def accept_loss(project: Project, reason: str) -> list[str]:
    """Accept the recorded losses, so that ct uses the data again. Returns the losses; Usage error where there are
    none."""
    catalog = project.closed_catalog().open(frozenset({"held"}))
    with catalog.write(though_archived=True) as writer:
        value = settings_of(writer.connection).get(HELD)
        if value is None:
            raise Usage("no loss waits to be accepted; `ct verify` checks the records")
        said = json.loads(value)
        writer.event("accept-loss", "catalog", {**said, ACCEPTED: said["lost"], "reason": reason})
        writer.execute(setting.delete().where(setting.c.name == HELD))
    return list(said["lost"])


def _own(catalog: Catalog, *, up_to_date: bool = False) -> Catalog:
    """The catalog, upgraded if `up_to_date`. CatalogError where it belongs to another project."""
    with suppress(LostCatalog):
        if not catalog.is_lost():
            if up_to_date and (catalog.version() or "") < HEAD:
                upgrade(catalog)
            if catalog.version() is not None:
                catalog.refuse_another()
    return catalog


class _Recovery:
    """One recovery, planned and carried out from `Losses`."""

    def __init__(self, project: Project, catalog: Catalog, found: Losses) -> None:
        self.project, self.catalog, self.found = project, catalog, found
        self.history, self.root = found.history, project.root
        self.replay = found.replay
        before = self.replay.tables["setting"].get((HELD,))
        self.before = json.loads(before.row["value"]) if before else {"lost": {}, "others": 0, "more": False}
        self.holds = {
            "lost": self.history.unknown(),
            "others": self.before["others"] + len(self.history.others),
            "more": self.before["more"] or self.history.more,
        }

    @property
    def held(self) -> str | None:
        return canonical_json(self.holds).decode() if any(self.holds.values()) else None

    @property
    def is_needed(self) -> bool:
        """Whether a record is not whole, or the recorded losses have changed."""
        return not (self.found.is_catalog_whole and self.found.is_journal_whole and self.holds == self.before)

    def planned(self) -> Recovery:
        made = None
        if self.found.catalog == "there" and self.catalog.version() == HEAD:
            with self.catalog.read() as connection:
                made = makings(self.project, self.replay, connection)
        elif self.found.catalog != "there":
            made = makings(self.project, self.replay, None)
        return self._said(made, tuple(self._steps()) if self.is_needed else ())

    @property
    def cut_off(self) -> list[Row]:
        """Events of a recovery that was killed before it wrote them to the journal, where nothing else is lost. They
        are appended there; no second recovery is recorded."""
        lines, rows = self.found.lines, self.history.rows
        only_behind = self.found.is_catalog_whole and self.holds == self.before and not self.found.strays
        left = rows[len(lines) :] if only_behind and lines == rows[: len(lines)] else []
        return left if all(row["kind"] == "recover" for row in left) else []

    def _steps(self) -> Iterator[str]:
        if left := self.cut_off:
            which = event_ranges(row["seq"] for row in left)
            yield f"{self.catalog.journal.path.name}: {which} of an interrupted recovery appended"
            return
        many = f"{len(self.history.rows)} events"
        if not self.found.is_journal_whole:
            yield f"{self.catalog.journal.path.name}: rewritten, {many}"
        if not self.found.is_catalog_whole:
            yield f"catalog: {'tables rewritten' if self.found.catalog == 'there' else 'rebuilt'}, {many}"
        if self._taken_back():
            yield "catalog: whoever took consent back in the other history is not used here either"
        if again := self._unregistered():
            yield f"catalog: {count_text(len(again), 'patient')} registered again: only consents of them are on record"
        lines = len(self.found.strays) + sum(map(len, self.found.left_out))
        what = [f"{lines} line{'s' * (lines != 1)}"] * bool(lines)
        what += ["the old catalog"] * bool(self._files())
        if what:
            yield f"{self._aside().relative_to(self.root)}: {' and '.join(what)}, set aside"
        if self.found.catalog == "damaged" and not self.catalog.is_sqlite:
            yield f"schema {self._other_schema()}: the old catalog, set aside"

    def _files(self) -> list[Path]:
        """Files of a SQLite catalog that has to be rebuilt. A write-ahead log without its database is no catalog."""
        if not self.catalog.is_sqlite or self.found.catalog == "there":
            return []
        place = Path(str(self.catalog.url.database))
        names = [place.with_name(place.name + suffix) for suffix in ("", "-wal", "-shm")]
        return [path for path in names if path.exists()]

    def done(self) -> Recovery:
        if not self.is_needed or self.cut_off:
            steps = tuple(self._steps()) if self.cut_off else ()
            with self.catalog.read() as connection:
                made = makings(self.project, self.replay, connection)
            self.catalog.append_to_journal()
            return self._said(made, steps)
        steps = tuple(self._steps())
        if not self.project.store.is_there:  # before anything is written
            self.planned()
        aside = self._set_aside() if any(one.startswith(ASIDE) for one in steps) else None
        if not self.found.is_journal_whole:  # first, so that the journal has all events of the catalog
            self.catalog.journal.replace(self.found.vouched)
        if self.found.catalog == "there":
            try:
                made, left = self._write(self.catalog)
            except LostCatalog as error:
                words = [*self.found.words, str(error)]
                self.found = replace(self.found, catalog="damaged", is_catalog_whole=False, words=words)
                return self.done()
        else:
            made, left = self._rebuild(aside)
        with self.catalog.read() as connection:
            if self.found.redacted:  # only now, because the chain has the event that vouches for it
                self.catalog.journal.rewrite(connection)
            # the witness may have seen events that are lost
            self.catalog.journal.witness.write(LastEvent(*last_event_of(connection), 0))
            unsure = len(makings_of_lost_inputs(connection, ()))  # not by today's steps, which may not load
        self.catalog.append_to_journal()
        self.catalog.scrub()
        return replace(self._said(made, steps), left=tuple(left), unsure=unsure)

    def _said(self, made: Makings | None, done: tuple[str, ...]) -> Recovery:
        lost, replaced = (
            [(number, name_of((one.row["asset"], one.row["partition"]))) for number, one in some.items()]
            for some in self._gone(made)
        )
        purges = {number: self._purge_words(purge) for number, purge in (made.purges.items() if made else ())}
        return Recovery(
            len(self.history.rows),
            made.count if made else 0,
            tuple(name for number, name in lost if number not in purges),
            tuple((name, purges[number]) for number, name in lost if number in purges),
            tuple(name for _, name in replaced),
            found=tuple(self.found.words),
            done=done,
            held=held_text(self.held) if self.held else None,
            hidden=self._hidden(),
            everybody=self._everybody(),
        )

    def _purge_words(self, number: int) -> str:
        return purge_words(SimpleNamespace(**self.replay.tables["purge"][(number,)].row))

    def _hidden(self) -> dict[str, set[str]]:
        """Hidden IDs by the events, because the tables may be lost or edited."""
        entities, consents = (self.replay.tables[name] for name in ("entity", "consent"))
        told = [consents[key].row for key in sorted(consents)]
        found = hidden_ids_of_rows(
            (one.row for one in entities.values()), told, today(), self.project.settings.uses.required
        )
        found["patient"].update(self._unregistered())
        return found

    def _everybody(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {level: set() for level in ENTITY_LEVELS}
        for one in self.replay.tables["entity"].values():
            found[one.row["level"]].add(one.row["id"])
        found["patient"].update(self._unregistered())
        return found

    @staticmethod
    def _gone(made: Makings | None) -> tuple[Mapping[int, Any], Mapping[int, Any]]:
        return (made.lost, made.replaced) if made else ({}, {})

    def _write(self, catalog: Catalog, *, is_new: bool = False) -> tuple[Makings, list[tuple[str, str]]]:
        """Write the tables, the event and the recorded losses in one transaction."""
        with catalog.exclusive() as connection:
            many = connection.execute(select(func.count()).select_from(event)).scalar()
            if not is_new and many != len(self.found.events):
                raise _OthersWrote
            writer = Writer(connection, catalog.actor)
            made = makings(self.project, self.replay, None if is_new else connection)
            if is_new or not self.found.is_catalog_whole:
                rewrite(writer, self.history.rows, self.replay, made)
            self._record(writer, made)
            left = compare_catalog(connection)
        return made, left

    def _record(self, writer: Writer, made: Makings) -> None:
        lost = [name_of((one.row["asset"], one.row["partition"])) for one in made.lost.values()]
        body = {
            "events": len(self.history.rows),
            "found": first_lines(self.found.words),
            "lost": lost,
            "without": made.without,
            "held": self.holds if self.held else None,
        }
        if free := self._free():
            body[FREE] = free
            writer.execute(setting.delete().where(setting.c.name == FREE))
            writer.insert(setting, [{"name": FREE, "value": setting_of(body)}])
        body |= {REDACTED: self.found.redacted} if self.found.redacted else {}
        body |= {NUMBERS: changed} if (changed := self.found.purges.numbers.changed) else {}
        # Behind the last event that the witness has seen, be it there or not: what turns up later fits into the gap
        # (0022).
        after = max(self.history.head, last_event_of(writer.connection))
        writer.appended += append_events(
            writer.connection, [(writer.actor, "recover", "catalog", body)], writer.at, after
        )
        writer.execute(setting.delete().where(setting.c.name == HELD))
        if self.held:
            writer.insert(setting, [{"name": HELD, "value": self.held}])
        self._register_patients(writer)
        bar_again(writer, self._taken_back())
        writer.flush()

    def _taken_back(self) -> dict[str, Any]:
        """The last statements of the other history that take consent back, by patient."""
        rows = (row for row in self.history.others if row["kind"] == "consent")
        said = {one["patient"]: one for row in rows for one in json.loads(row["body"])["consents"]}
        return {who: one for who, one in said.items() if one["status"] not in GIVEN}

    def _register_patients(self, writer: Writer) -> None:
        """Register the patients whose consents are on record, and whose registration is lost."""
        first = next_number(writer.connection, entity.c.seq)
        blank = {"level": "patient", "parent": None, "attributes": "{}"}
        rows = [{"seq": first + at, "id": who, **blank} for at, who in enumerate(self._unregistered())]
        if rows:
            levels = applied_schema(writer.connection)
            relax(writer.connection)  # the schema may require values that nobody knows
            writer.insert(entity, rows)
            if levels is not None:
                enforce(writer.connection, levels)
            writer.event("register", "catalog", {"new": rows})
            write_what_waited(writer, {f"patient/{row['id']}" for row in rows})
            writer.flush()

    def _unregistered(self) -> list[str]:
        names = (name.partition("/") for name in self.replay.waiting)
        return [who for level, _, who in names if level == "patient" and re.fullmatch(ID_PATTERN, who)]

    def _free(self) -> dict[str, int]:
        """Row numbers that stay free for lost events, in case they turn up."""
        lost = sum(last - first + 1 for first, last in self.history.missing)
        last = {name: self.replay.next(name) - 1 for name in self.replay.KEYS}
        return left_free(last, lost) if self.holds["lost"] and lost else {}

    def _rebuild(self, aside: Path | None) -> tuple[Makings, list[tuple[str, str]]]:
        """Build a new catalog beside the old one, then move it into place."""
        if not self.catalog.is_sqlite:
            self._move_schema()
            upgrade(self.catalog)
            return self._write(self.catalog, is_new=True)
        self.catalog.engine.dispose()
        place = Path(str(self.catalog.url.database))
        part = place.with_name(f".{place.name}.new")
        for left in part.parent.glob(f"{part.name}*"):
            left.unlink()
        everybody = self.project.settings.readable == "everybody"
        new = Catalog(f"sqlite:///{part}", self.project.id, self.catalog.journal.path, for_everybody=everybody)
        upgrade(new)
        made = self._write(new, is_new=True)
        # All of the log into the file: only the file is moved to its place.
        new.scrub()
        new.engine.dispose()
        # The log of the old catalog first: beside the new file, SQLite would take it for that one's
        # (sqlite.org/howtocorrupt.html, mispairing database files and hot journals).
        for old in self._files():
            os.replace(old, (aside or self._set_aside()) / old.name)
        os.replace(part, place)
        sync(place.parent)
        return made

    def _move_schema(self) -> None:
        schema, other = self.catalog.schema, self._other_schema()
        with self.catalog.exclusive() as connection:
            if schema in self._schemas(connection):
                connection.execute(text(f'ALTER SCHEMA "{schema}" RENAME TO "{other}"'))
        self.catalog.engine.dispose()

    def _other_schema(self) -> str:
        with self.catalog.read() as connection:
            there = self._schemas(connection)
        return next(one for n in range(1, 1000) if (one := f"{set_aside_prefix(self.catalog.schema)}{n}") not in there)

    @staticmethod
    def _schemas(connection: Connection) -> set[str]:
        return set(connection.execute(text("SELECT nspname FROM pg_namespace")).scalars())

    def _aside(self) -> Path:
        taken = {path.name for path in (self.root / ASIDE).glob("*")}
        return self.root / ASIDE / next(str(n) for n in range(1, len(taken) + 2) if str(n) not in taken)

    def _set_aside(self) -> Path:
        """Move rows and lines that neither record will contain into a new folder of `set-aside/`."""
        folder = self._aside()
        folder.parent.mkdir(mode=0o770, exist_ok=True)
        folder.mkdir()
        of_catalog, of_journal = self.found.left_out
        journal = [*self.found.strays, *map(event_line, of_journal)]
        _keep(folder / self.catalog.journal.path.name, journal)
        _keep(folder / "catalog.jsonl", [_line(row) for row in of_catalog])
        # The folder as well: the files' own sync does not put their names on disk (fsync(2)).
        sync(folder)
        return folder


def _line(row: Row) -> bytes:
    """The row as a line of the journal; a body that is not JSON stays a string."""
    try:
        json_text.loads(row["body"])
        return event_line(row)
    except ValueError:
        return canonical_json(row) + b"\n"


def _keep(path: Path, lines: Iterable[bytes]) -> None:
    if listed := list(lines):
        with path.open("wb") as stream:
            stream.writelines(listed)
            stream.flush()
            os.fsync(stream.fileno())


@contextmanager
def _locked(project: Project) -> Iterator[None]:
    """Hold the lock of recoveries: one recovery runs at a time."""
    project.work.mkdir(parents=True, exist_ok=True)
    with (project.work / "recover.lock").open("a") as stream:
        # The kernel frees it with the process, however it ends (flock(2)): nothing is left to be cleared away.
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
