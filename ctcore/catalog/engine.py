"""Opening the catalog: one engine for SQLite or PostgreSQL, one way to read and one way to write.

SQLite is for one host: WAL, foreign keys, a busy timeout and `synchronous=FULL`. On PostgreSQL each project has a
schema of its own, so that several projects and Dagster itself share one database.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Table,
    Text,
    TypeDecorator,
    bindparam,
    literal,
    text,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from ctcore.catalog.connection import CACHE_KIB, SCANNED_KIB, error_hint, is_damage, make_engine, parse_url, schema_of
from ctcore.catalog.event_log import WAY, Journal, append_events, event_range
from ctcore.catalog.ownership import (
    HELD,
    OWNER,
    PLACE,
    ProjectState,
    check_owner,
    held_text,
    project_state_of,
    refusal_text,
    settings_of,
)
from ctcore.catalog.tables import setting
from ctcore.errors import CatalogError, LostCatalog
from ctcore.store.digest import digest_value
from ctcore.util.clock import now, seconds_since
from ctcore.util.disk_errors import free_at

HEAD = "0013"
LATE_S = 60.0  # after so many seconds, an event that the journal lacks is late
# Any number, but for ever the same: ct of two versions must keep each other out.
_LOCK = 7_203_391  # the advisory lock under which a schema is migrated and its event chain grows


@lru_cache
def _insert(table: Table) -> Any:
    return table.insert()


@lru_cache
def _compiled(statement: Any, names: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """An insert as SQLite takes it, and the order of its values."""
    compiled: Any = statement.compile(dialect=sqlite.dialect(paramstyle="qmark"), column_keys=list(names))
    return str(compiled), tuple(compiled.positiontup)


class Writer:
    """One transaction at one moment. It reports its changes: events are chained and committed with the rows.

    `actor` is the author of the next changes.
    """

    def __init__(self, connection: Connection, actor: str) -> None:
        self.connection = connection
        self.actor = actor
        self.at = now()
        self._events: list[tuple[str, str, str, Any]] = []
        self.appended: list[dict[str, Any]] = []

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        return self.connection.execute(*args, **kwargs)

    def insert(self, table: Any, rows: list[dict[str, Any]]) -> None:
        """Insert rows with one statement; none if there are no rows."""
        self.execute_many(_insert(table), rows)

    def execute_many(self, statement: Any, rows: Sequence[dict[str, Any]]) -> None:
        """Insert or upsert many rows with the same keys.

        SQLite's driver gets tuples, which takes half of SQLAlchemy's time; PostgreSQL's is better served by SQLAlchemy,
        which sends many at a time.
        """
        if not rows:
            return
        dialect = self.connection.dialect
        if dialect.name != "sqlite":
            self.connection.execute(statement, rows)
            return
        written, names = _compiled(statement, tuple(rows[0]))
        self.connection.exec_driver_sql(written, [tuple([row[name] for name in names]) for row in rows])

    def event(self, kind: str, subject: str, body: Any) -> None:
        """Record a change of truth: kind, subject and values."""
        self._events.append((self.actor, kind, subject, body))

    def overwrite(self) -> None:
        """From here on, SQLite overwrites deleted content in its file; see also `Catalog.scrub`."""
        if self.connection.dialect.name == "sqlite":
            self.connection.exec_driver_sql("PRAGMA secure_delete=ON")

    def flush(self) -> None:
        if self._events:
            self.appended += append_events(self.connection, self._events, self.at)
            self._events = []


class Catalog:
    """The catalog of one project, at a SQLAlchemy URL."""

    def __init__(
        self, url: str, project_id: str, journal: Path, actor: str | None = None, *, for_everybody: bool = False
    ) -> None:
        self.url = parse_url(url)
        self.project_id = project_id
        self.schema = schema_of(project_id)
        self.actor = actor or os.environ.get("CT_ACTOR") or os.environ.get("USER") or f"uid:{os.getuid()}"
        if not self.actor.strip() or not self.actor.isprintable():
            raise CatalogError(f"the name of who acts is {self.actor!a}; set CT_ACTOR to one line of text")
        # Writers of one group append to one file: the group may write, others only where ct.toml says so.
        self.journal = Journal(journal, 0o666 if for_everybody else 0o660)
        self.engine = make_engine(self.url, self.schema)
        # SQLite's transactions always see one state; PostgreSQL's do where they are asked to
        # PostgreSQL's default, READ COMMITTED, takes a new snapshot for each statement (manual, 13.2.1): a verdict
        # would compare rows of two states.
        one_state: Any = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._opened: int | None = None
        self.tolerated = frozenset[str]()
        self.divergence: str | None = None
        self.notes: list[str] = []
        self._reading = self.engine.execution_options(**one_state)

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @cached_property
    def write_queue(self) -> str:
        """The name of the folder in which this catalog's writers meet."""
        return digest_value("ct.meeting.v1", [self.place, self.schema])[:16]

    @property
    def place(self) -> str:
        """Where it is, without a password."""
        if self.is_sqlite:
            return str(self.url.database)
        shown = {key: said for key, said in self.url.query.items() if key in ("host", "port", "user", "dbname")}
        url = self.url.set(drivername="postgresql", query=shown)
        return f"{url.render_as_string(hide_password=True)} schema {self.schema}"

    def open(self, tolerated: frozenset[str] = frozenset()) -> "Catalog":
        """Create or migrate the catalog, and write to the journal whatever a crash kept from it.

        LostCatalog if a catalog existed and is gone. CatalogError if it lacks events that the other records have, or if
        a loss holds everybody back. `tolerated` lets some of this pass: `held` for commands that state the truth again,
        `apart` for commands that look at the loss.
        """
        self.tolerated = tolerated
        version = self.version()
        if version is None and (remains := self._remains) is not None:
            raise LostCatalog(f"the catalog {self.place} is not there, and {remains}; {WAY}")
        # Revisions are numbered with leading zeros, so their order as text is their order in time.
        if version is None or version < HEAD:
            with self._described_errors():
                from ctcore.catalog.migrations import upgrade

                upgrade(self)
        self._refuse_newer(version)
        with self.read() as connection:
            known = self._of_itself(connection)
            is_apart = self.journal.has_diverged(connection)
        if is_apart:
            self._align_journal()
        self._refuse_held(known)
        self._opened = self._inode()
        return self

    def refuse_another(self) -> None:
        """CatalogError where it is of a newer ct, another project or another folder."""
        self._refuse_newer(self.version())
        with self.read() as connection:
            self._of_itself(connection)

    def _refuse_newer(self, version: str | None) -> None:
        if (version or "") > HEAD:
            raise CatalogError(
                f"{self.place} is of version {version}; this ct knows up to {HEAD}. "
                "It was written by a newer ct: use that one (nothing was changed)"
            )

    def _of_itself(self, connection: Connection) -> dict[str, str]:
        """The catalog's own ID, which must be this project's."""
        known = settings_of(connection)
        self._check_owner(known)
        return known

    def is_lost(self) -> bool:
        """Whether there is none, and something of it is left elsewhere."""
        return self.version() is None and self._remains is not None

    @property
    def _remains(self) -> str | None:
        """Traces of a catalog that existed."""
        if told := self.journal.last_known_event():
            is_there = self.journal.path.exists()
            return f"{self.journal.path.name if is_there else 'the store'} tells of {event_range(1, told)}"
        store = self.journal.witness.path.parent
        with suppress(OSError):
            if any(not name.startswith(".") for name in os.listdir(store)):
                return f"{store} has results"
        return None

    def _inode(self) -> int | None:
        """Of SQLite's file; None where there is none."""
        if not self.is_sqlite or not self.url.database:
            return 0
        try:
            return os.stat(self.url.database).st_ino
        except FileNotFoundError:
            return None

    def _align_journal(self) -> None:
        if (edited := self.journal.edit_warning()) is not None:
            self.notes.append(edited)
        try:
            self._note(self.append_to_journal())
        except CatalogError as error:
            if "apart" not in self.tolerated:
                raise
            self.divergence = str(error)

    def _note(self, late: Sequence[Mapping[str, Any]]) -> None:
        """Report that the journal had lost its end. Others are still writing events that were committed a moment
        ago."""
        if late and seconds_since(late[0]["at"]) > LATE_S:
            listed = event_range(late[0]["seq"], late[-1]["seq"])
            self.notes.append(f"{self.journal.path.name} lacked {listed}: written there again from the catalog")

    def _refuse_held(self, known: Mapping[str, str]) -> None:
        if HELD not in known:
            return
        said = held_text(known[HELD])
        if "held" not in self.tolerated:
            raise CatalogError(said)
        if "apart" not in self.tolerated and said not in self.notes:  # a list of consents is not all there was
            self.notes.append(said)

    def version(self) -> str | None:
        """The version of its tables; None if there are none yet. It does not create SQLite's file."""
        if self.is_sqlite and self._inode() is None:
            return None
        with self._described_errors(), self.engine.connect() as connection:
            if self.is_sqlite:
                known = text("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")
            else:
                known = text(
                    "SELECT 1 FROM pg_tables WHERE schemaname = :s AND tablename = 'alembic_version'"
                ).bindparams(s=self.schema)
            if connection.execute(known).first() is None:
                return None
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()

    def make_file(self) -> None:
        """SQLite's file, with the rights that it shall have; its log gets the same. One that is there is not opened:
        to close it would take the locks of this process's connections."""
        if self.is_sqlite and self.url.database:
            # O_EXCL keeps off a file in use: closing any descriptor of it drops all of this process's POSIX locks on
            # it, also SQLite's (fcntl(2); sqlite.org/howtocorrupt.html, 2.2).
            with suppress(OSError):  # SQLite says why
                os.close(os.open(self.url.database, os.O_RDONLY | os.O_CREAT | os.O_EXCL, self.journal.mode))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the catalog."""
        with self._described_errors(), self._reading.connect() as connection:
            yield connection

    @contextmanager
    def scan(self) -> Iterator[Connection]:
        """The same for whole tables: SQLite keeps few of their pages."""
        with self.read() as connection:
            if not self.is_sqlite:
                yield connection
                return
            # A scan reads each page once: a large cache would only grow the process by the size of the catalog.
            connection.exec_driver_sql(f"PRAGMA cache_size=-{SCANNED_KIB}")
            try:
                yield connection
            finally:
                connection.exec_driver_sql(f"PRAGMA cache_size=-{CACHE_KIB}")

    @contextmanager
    def write(self, *, though_archived: bool = False) -> Iterator[Writer]:
        """One exclusive transaction: all of it is in the catalog and the journal, or nothing.

        CatalogError if the project is archived, except for the command that reopens it.
        """
        # SQLite goes on writing into a file that was deleted or replaced, without an error
        # (sqlite.org/howtocorrupt.html).
        if self._opened is not None and self._inode() != self._opened:
            raise CatalogError(f"{self.place} was taken away or replaced while it was in use: start again")
        with self._described_errors(), self.exclusive() as connection:
            self._allow(connection, though_archived)
            writer = Writer(connection, self.actor)
            yield writer
            writer.flush()
        # After the commit: a line in the file must never tell of an event that was rolled back.
        self.append_to_journal(writer.appended)

    @contextmanager
    def exclusive(self) -> Iterator[Connection]:
        """A transaction while which no other process changes the catalog."""
        writing = self.engine.connect().execution_options
        with self._described_errors(), writing(ct_write=True) as connection, connection.begin():
            if not self.is_sqlite:
                lock = text("SELECT pg_advisory_xact_lock(:n, hashtext(:s))")
                # One writer per project. A row lock would not do: a first writer has no row yet, and INSERTs do not
                # conflict. The lock goes with the transaction, also when the process dies.
                connection.execute(lock.bindparams(n=_LOCK, s=self.schema))
            yield connection

    def project_state(self) -> ProjectState:
        """Whether the project is active, complete or archived; since when, by whom and why."""
        with self.read() as connection:
            return project_state_of(settings_of(connection))

    def refuse_archived(self) -> None:
        """CatalogError where the project is archived: before work whose end could not be written."""
        life = self.project_state()
        if life.is_archived:
            raise CatalogError(refusal_text(self.project_id, life))

    def _allow(self, connection: Connection, though_archived: bool) -> None:
        # Under the write lock, not only at the opening: the project may have been archived since.
        known = self._of_itself(connection)
        self._refuse_held(known)
        life = project_state_of(known)
        if life.is_archived and not though_archived:
            raise CatalogError(refusal_text(self.project_id, life))
        said = {OWNER: self.project_id} | ({} if self.is_sqlite else {PLACE: str(self._root)})
        news = {name: value for name, value in said.items() if known.get(name) != value}
        if news:  # the first writer; or the directory was moved
            connection.execute(setting.delete().where(setting.c.name.in_(news)))
            connection.execute(setting.insert(), [{"name": name, "value": value} for name, value in news.items()])

    def _check_owner(self, known: dict[str, str]) -> None:
        check_owner(known, self.project_id, self._root, self.place, shared=not self.is_sqlite)

    @property
    def _root(self) -> Path:
        return self.journal.path.absolute().parent

    def append_to_journal(self, committed: Sequence[dict[str, Any]] = ()) -> Sequence[dict[str, Any]]:
        """Append to provenance.jsonl the events that it does not have yet; returns them. `committed`: its newest, if
        known."""
        with self._described_errors(), ExitStack() as stack:
            return self.journal.follow(lambda: stack.enter_context(self.engine.connect()), committed)

    def scrub(self) -> None:
        """Remove overwritten content from SQLite's files, both from free space and from the log."""
        if self.is_sqlite:
            with self._described_errors(), self.engine.connect() as connection:
                raw = connection.connection.driver_connection
                assert raw is not None
                # secure_delete overwrites rows in the database. The log keeps older copies of their pages until it is
                # truncated (sqlite.org/pragma.html#pragma_wal_checkpoint).
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _described_errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            kind = LostCatalog if is_damage(error) else CatalogError
            if self.is_sqlite and Path(str(self.url.database)).is_dir():
                raise CatalogError(f"{self.place} is a folder: move it away, and {WAY}") from error
            free = free_at(str(self.url.database)) if self.is_sqlite else None
            raise kind(f"catalog {self.place}: {error_hint(error, free)}") from error


class _InKeys(FunctionElement[bool]):
    """Written as text where it is compiled: made of SQLAlchemy's parts, it took a third of recording one result."""

    type = Boolean()
    inherit_cache = True

    def self_group(self, against: Any = None) -> Any:
        """Return it unchanged: SQLite has no booleans, SQLAlchemy would append `= 1`, and no index would be used."""
        return self


class _Among(_InKeys):
    """For a few keys: PostgreSQL gets an array, looks each of them up, and plans no join."""

    inherit_cache = True


class _Keys(TypeDecorator[Any]):
    """A list of keys as the database takes it: SQLite as JSON, PostgreSQL as an array."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return json.dumps(value) if dialect.name == "sqlite" else value


@compiles(_InKeys, "sqlite")
def _in_keys_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    column, keys = (compiler.process(one, **kw) for one in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({keys}))"


@compiles(_InKeys, "postgresql")
def _in_keys_postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    column, keys = (compiler.process(one, **kw) for one in element.clauses)
    kind = compiler.dialect.type_compiler_instance.process(element.clauses.clauses[0].type)
    listed = f"SELECT CAST(value AS {kind}) FROM jsonb_array_elements_text(CAST({keys} AS JSONB)) AS value"
    return f"{column} IN ({listed})"


@compiles(_Among, "postgresql")
def _among_postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    column, keys = (compiler.process(one, **kw) for one in element.clauses)
    return f"{column} = ANY ({keys})"


def in_keys(column: Any, keys: Iterable[str] | Iterable[int]) -> ColumnElement[bool]:
    """`column IN keys` for any number of keys, as one bound value."""
    # A parameter a key would end at 32,766 on SQLite (sqlite.org/limits.html, SQLITE_MAX_VARIABLE_NUMBER), and at
    # 65,535 on PostgreSQL, whose protocol counts them in 16 bits.
    return _InKeys(column, literal(json.dumps(bind_keys(keys))))  # pyright: ignore[reportArgumentType]


def in_bound_keys(column: Any, name: str = "keys") -> ColumnElement[bool]:
    """The same in a statement that is made once, as making one takes longer than doing it: `bound` is its value."""
    return _Among(column, bindparam(name, type_=_Keys()))  # pyright: ignore[reportArgumentType]


def bind_keys(keys: Iterable[str] | Iterable[int]) -> list[Any]:
    return sorted(keys)


def upsert(writer: Writer, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows, or replace those with the same primary key."""
    if not rows:
        return
    writer.execute_many(_upsert(table, tuple(rows[0]), writer.connection.dialect.name), rows)


@lru_cache
def _upsert(table: Table, names: tuple[str, ...], dialect: str) -> Any:
    if dialect == "sqlite":
        from sqlalchemy.dialects.sqlite import insert
    else:
        from sqlalchemy.dialects.postgresql import insert
    keys = [column.name for column in table.primary_key]
    statement: Any = insert(table)
    others = {name: statement.excluded[name] for name in names if name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=others)
