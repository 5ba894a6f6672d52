"""② The one way back: whatever is lost of catalog and provenance.jsonl, both are again what they prove together.

What cannot come back is said, in the chain too, and holds everybody back until a person answers for it: a consent may
have been taken back there. Nothing is thrown away: what is not used lies in `set-aside/`.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select, text

from ctcore import jsontext
from ctcore.agreement import compared
from ctcore.catalog.chain import ACCEPTED, append_events, line_of, newest_of
from ctcore.catalog.engine import HEAD, Catalog, Writer
from ctcore.catalog.life import HELD, held, settings_of
from ctcore.catalog.migrations import upgrade
from ctcore.catalog.pieces import Row
from ctcore.catalog.tables import event, setting
from ctcore.catalog.witness import Seen
from ctcore.digest import canonical
from ctcore.errors import CatalogError, LostCatalog, Usage
from ctcore.losses import Losses, losses
from ctcore.project import Project
from ctcore.reasons import name_of
from ctcore.rebuild import Makings, makings, rewrite
from ctcore.whole import sync

ASIDE = "set-aside"
SHOWN = 20  # of what was found
_TRIES = 3  # while others write


@dataclass(frozen=True)
class Recovered:
    """What was wrong (`found`) and what was done about it, or would be; how much there is again. Makings that have no
    files any more, and those with others in their place since, are not in the ledger; `left` does not fit together.
    `held`: why nobody is used."""

    events: int
    makings: int
    lost: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    left: tuple[tuple[str, str], ...] = ()
    found: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    held: str | None = None


def shown(words: Sequence[str]) -> list[str]:
    """The first of them, and how many more there are."""
    return [*words[:SHOWN], *([f"… and {len(words) - SHOWN} more"] if len(words) > SHOWN else [])]


class _Meanwhile(Exception):
    """Somebody else has written."""


def recover(project: Project, *, dry_run: bool = False) -> Recovered:
    """Make both records whole, from each other, the store, and what its witness has seen. Nothing is written where
    nothing is lost, or where nothing can be made of what is there."""
    catalog = project.closed_catalog()
    try:
        if dry_run:
            return _Recovery(project, catalog, losses(_own(catalog))).planned()
        with _alone(project):
            for _ in range(_TRIES):
                found = losses(_own(catalog, up_to_date=True))
                try:
                    return _Recovery(project, catalog, found).done()
                except _Meanwhile:
                    continue
            raise CatalogError("others write all the time; stop what runs (`ct dev`, `ct run`), then `ct recover`")
    finally:
        catalog.engine.dispose()


def accept_loss(project: Project, reason: str) -> list[str]:
    """Somebody answers for it that what is lost holds nobody back any more. Returns what it is; Usage error where
    nothing does."""
    catalog = project.closed_catalog().open(frozenset({"held"}))
    with catalog.write(though_archived=True) as writer:
        value = settings_of(writer.connection).get(HELD)
        if value is None:
            raise Usage("nothing holds anybody back: no loss is left to be accepted")
        said = json.loads(value)
        writer.event("accept-loss", "catalog", {**said, ACCEPTED: said["lost"], "reason": reason})
        writer.execute(setting.delete().where(setting.c.name == HELD))
    return list(said["lost"])


def _own(catalog: Catalog, *, up_to_date: bool = False) -> Catalog:
    """With the tables of today, where that is wanted. CatalogError where it is not this project's."""
    with suppress(LostCatalog):
        if not catalog.is_lost():
            if up_to_date and (catalog.version() or "") < HEAD:
                upgrade(catalog)
            if catalog.version() is not None:
                catalog.refuse_another()
    return catalog


class _Recovery:
    """One recovery, from what was found."""

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
        return canonical(self.holds).decode() if any(self.holds.values()) else None

    @property
    def is_needed(self) -> bool:
        """Whether anything is otherwise than it should be, or than it was told to be."""
        return not (self.found.is_catalog_whole and self.found.is_journal_whole and self.holds == self.before)

    def planned(self) -> Recovered:
        made = None
        if self.found.catalog == "there" and self.catalog.version() == HEAD:
            with self.catalog.read() as connection:
                made = makings(self.project, self.replay, connection)
        elif self.found.catalog != "there":
            made = makings(self.project, self.replay, None)
        return self._said(made, tuple(self._steps()) if self.is_needed else ())

    def _steps(self) -> Iterator[str]:
        many = f"{len(self.history.rows)} events"
        if not self.found.is_journal_whole:
            yield f"{self.catalog.journal.path.name}: written anew, {many}"
        if not self.found.is_catalog_whole:
            yield f"catalog: {'its tables' if self.found.catalog == 'there' else 'made'} anew, {many}"
        lines = len(self.found.strays) + sum(map(len, self.found.left_out))
        what = [f"{lines} line{'s' * (lines != 1)}"] * bool(lines)
        what += ["what is there of the catalog"] * bool(self._files())
        if what:
            yield f"{self._aside().relative_to(self.root)}: {' and '.join(what)}, set aside"
        if self.found.catalog == "damaged" and not self.catalog.is_sqlite:
            yield f"schema {self._other_schema()}: what is there of the catalog, set aside"

    def _files(self) -> list[Path]:
        """What is there of a catalog on SQLite that has to be made anew: a log without its file is no catalog."""
        if not self.catalog.is_sqlite or self.found.catalog == "there":
            return []
        place = Path(str(self.catalog.url.database))
        names = [place.with_name(place.name + suffix) for suffix in ("", "-wal", "-shm")]
        return [path for path in names if path.exists()]

    def done(self) -> Recovered:
        if not self.is_needed:
            with self.catalog.read() as connection:
                made = makings(self.project, self.replay, connection)
            self.catalog.mirror()
            return self._said(made, ())
        steps = tuple(self._steps())
        if not self.project.store.is_there:  # before anything is written
            self.planned()
        aside = self._set_aside() if any(one.startswith(ASIDE) for one in steps) else None
        if not self.found.is_journal_whole:  # first: what the catalog had is here from now on
            self.catalog.journal.replace(self.history.rows)
        if self.found.catalog == "there":
            try:
                made, left = self._write(self.catalog)
            except LostCatalog as error:
                words = [*self.found.words, str(error)]
                self.found = replace(self.found, catalog="damaged", is_catalog_whole=False, words=words)
                return self.done()
        else:
            made, left = self._anew(aside)
        with self.catalog.read() as connection:  # it may have seen what is lost
            self.catalog.journal.witness.write(Seen(*newest_of(connection), 0))
        self.catalog.mirror()
        self.catalog.scrub()
        return replace(self._said(made, steps), left=tuple(left))

    def _said(self, made: Makings | None, done: tuple[str, ...]) -> Recovered:
        names = [
            [name_of((one.row["asset"], one.row["partition"])) for one in some.values()] for some in self._gone(made)
        ]
        return Recovered(
            len(self.history.rows),
            made.count if made else 0,
            tuple(names[0]),
            tuple(names[1]),
            found=tuple(self.found.words),
            done=done,
            held=held(self.held) if self.held else None,
        )

    @staticmethod
    def _gone(made: Makings | None) -> tuple[Mapping[int, Any], Mapping[int, Any]]:
        return (made.lost, made.replaced) if made else ({}, {})

    def _write(self, catalog: Catalog, *, is_new: bool = False) -> tuple[Makings, list[tuple[str, str]]]:
        """Tables, event and hold, in one transaction."""
        with catalog.alone() as connection:
            many = connection.execute(select(func.count()).select_from(event)).scalar()
            if not is_new and many != len(self.found.events):
                raise _Meanwhile
            writer = Writer(connection, catalog.actor)
            made = makings(self.project, self.replay, None if is_new else connection)
            if is_new or not self.found.is_catalog_whole:
                rewrite(writer, self.history.rows, self.replay, made)
            self._say(writer, made)
            left = compared(connection)
        return made, left

    def _say(self, writer: Writer, made: Makings) -> None:
        lost = [name_of((one.row["asset"], one.row["partition"])) for one in made.lost.values()]
        body = {
            "events": len(self.history.rows),
            "found": shown(self.found.words),
            "lost": lost,
            "without": made.without,
            "held": self.holds if self.held else None,
        }
        after = max(self.history.head, newest_of(writer.connection))
        writer.told += append_events(writer.connection, [(writer.actor, "recover", "catalog", body)], writer.at, after)
        writer.execute(setting.delete().where(setting.c.name == HELD))
        if self.held:
            writer.insert(setting, [{"name": HELD, "value": self.held}])

    def _anew(self, aside: Path | None) -> tuple[Makings, list[tuple[str, str]]]:
        """Make the catalog beside what is there of it, and put it in its place."""
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
        new.scrub()
        new.engine.dispose()
        for old in self._files():
            os.replace(old, (aside or self._set_aside()) / old.name)
        os.replace(part, place)
        sync(place.parent)
        return made

    def _move_schema(self) -> None:
        schema, other = self.catalog.schema, self._other_schema()
        with self.catalog.alone() as connection:
            if schema in self._schemas(connection):
                connection.execute(text(f'ALTER SCHEMA "{schema}" RENAME TO "{other}"'))
        self.catalog.engine.dispose()

    def _other_schema(self) -> str:
        with self.catalog.read() as connection:
            there = self._schemas(connection)
        return next(one for n in range(1, 1000) if (one := f"{self.catalog.schema[:50]}_aside_{n}") not in there)

    @staticmethod
    def _schemas(connection: Connection) -> set[str]:
        return set(connection.execute(text("SELECT nspname FROM pg_namespace")).scalars())

    def _aside(self) -> Path:
        taken = {path.name for path in (self.root / ASIDE).glob("*")}
        return self.root / ASIDE / next(str(n) for n in range(1, len(taken) + 2) if str(n) not in taken)

    def _set_aside(self) -> Path:
        """What is in neither record afterwards."""
        folder = self._aside()
        folder.parent.mkdir(mode=0o770, exist_ok=True)
        folder.mkdir()
        of_catalog, of_journal = self.found.left_out
        journal = [*self.found.strays, *map(line_of, of_journal)]
        _keep(folder / self.catalog.journal.path.name, journal)
        _keep(folder / "catalog.jsonl", [_line(row) for row in of_catalog])
        sync(folder)
        return folder


def _line(row: Row) -> bytes:
    """As the journal has it; what is no JSON any more, as it is."""
    try:
        jsontext.loads(row["body"])
        return line_of(row)
    except ValueError:
        return canonical(row) + b"\n"


def _keep(path: Path, lines: Iterable[bytes]) -> None:
    if listed := list(lines):
        with path.open("wb") as stream:
            stream.writelines(listed)
            stream.flush()
            os.fsync(stream.fileno())


@contextmanager
def _alone(project: Project) -> Iterator[None]:
    """One recovery at a time."""
    project.work.mkdir(parents=True, exist_ok=True)
    with (project.work / "recover.lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
