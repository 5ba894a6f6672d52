"""SQL over the gated tables, in a database in memory that holds nothing else and that nobody can change.

It has no way out: no file, no attached database, no extension, no pragma. SQLite checks each statement against a list
of allowed actions while it compiles it, and refuses everything else.
"""

import re
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

from ctcore.errors import Usage
from ctcore.query.result_rows import WIDE
from ctcore.query.table import Row, View, distinct_names
from ctcore.query.views import Views

SECONDS = 300.0  # a statement that takes longer is ended
LONGEST = 100_000_000  # bytes of one value
EVERY = 20_000  # instructions between two looks at the clock
_TYPES = {"text": "TEXT", "date": "TEXT", "integer": "INTEGER", "boolean": "INTEGER", "real": "REAL", "any": ""}
_TABLE_FUNCTIONS = ("json_each", "json_tree")
_FUNCTIONS = """
    abs avg ceil ceiling char coalesce concat concat_ws count cume_dist date datetime dense_rank exp first_value
    floor format glob group_concat hex ifnull iif instr json json_array json_array_length json_extract
    json_group_array json_group_object json_object json_quote json_type json_valid julianday lag last_value lead
    length like likely ln log log10 log2 lower ltrim max median min mod nth_value ntile nullif octet_length
    percent_rank pi pow power printf quote rank replace round row_number rtrim sign sqrt strftime string_agg
    substr substring sum time total trim trunc typeof unicode unixepoch unlikely upper -> ->>
"""
_ALLOWED = frozenset(_FUNCTIONS.split())
_HARMLESS = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE)


class Database:
    """The tables that a statement names, filled; then closed to everything but reading them."""

    def __init__(self, views: Views, sql: str, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        # Also what stands in texts and comments: a table filled in vain costs time, one not filled would seem to have
        # no rows.
        words = {word.lower() for word in re.findall(r"\w+", sql)}
        # A copy, not the catalog: whatever a statement reaches, it is only what the gate let through.
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.tables = set(views.all)
        self._ended = float("inf")
        # trusted_schema, cell_size_check: as sqlite.org/security.html advises for statements from outside.
        for pragma in ("temp_store=MEMORY", "trusted_schema=OFF", "cell_size_check=ON"):
            self.connection.execute(f"PRAGMA {pragma}")
        for view in views.all.values():
            self._fill(view, empty=view.name not in words)
        for word in sorted(word for word in words if word.startswith(WIDE)):
            if (view := views.view(word)) is not None:
                self._fill(view, empty=False)
                self.tables.add(view.name)
        self._close()

    def _fill(self, view: View, empty: bool) -> None:
        """Leave tables empty that the statement does not name: a statement must name a table to read it."""
        columns = ", ".join(f'"{name}" {_TYPES[kind]}' for name, kind in view.columns)
        most = self.connection.getlimit(sqlite3.SQLITE_LIMIT_COLUMN)
        if len(view.columns) > most:
            raise Usage(
                f"{view.name} has {len(view.columns):,} columns, and SQL takes {most:,}: "
                "`ct export FILE --wide LEVEL --columns PATTERN` writes them, and the table results has them as rows"
            )
        self.connection.execute(f'CREATE TABLE "{view.name}" ({columns})')
        if not empty:
            marks = ", ".join("?" * len(view.columns))
            self.connection.execute("BEGIN")
            self.connection.executemany(f'INSERT INTO "{view.name}" VALUES ({marks})', view.rows())
            self.connection.execute("COMMIT")

    def _close(self) -> None:
        for name in _TABLE_FUNCTIONS:  # SQLite declares them when they are first used, which is not allowed later
            self.connection.execute(f"SELECT 1 FROM {name}('[]')").fetchall()
        # The authorizer alone would do; each of these closes one way by itself (sqlite.org/security.html).
        self.connection.execute("PRAGMA query_only=ON")
        self.connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        self.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
        self.connection.setlimit(sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 0)
        # SQLite has no timeout for a statement; it calls this every EVERY instructions of its virtual machine.
        self.connection.set_progress_handler(self._is_late, EVERY)
        self.connection.set_authorizer(self._may)

    def _is_late(self) -> bool:
        return time.monotonic() > self._ended

    def _may(self, action: int, first: str | None, second: str | None, place: str | None, _inside: str | None) -> int:
        """SQLite asks this of everything that a statement would do."""
        if action in _HARMLESS:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ:
            # count(*) reads no column, and SQLite asks for the empty one (sqlite.org/c3ref/set_authorizer.html).
            if place is None and second == "":  # how many rows a table, or a part of the statement itself, has
                return sqlite3.SQLITE_OK
            known = place == "main" and first is not None and first.lower() in (*self.tables, *_TABLE_FUNCTIONS)
            return sqlite3.SQLITE_OK if known else sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_FUNCTION:
            return sqlite3.SQLITE_OK if second is not None and second.lower() in _ALLOWED else sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_DENY

    def query(self, sql: str) -> tuple[list[str], Iterator[Row]]:
        """The columns and the rows of one statement that reads."""
        self._ended = time.monotonic() + self.seconds
        try:
            cursor = self.connection.execute(sql)
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError) as error:
            raise self._refused(error) from error
        if cursor.description is None:
            raise Usage("the statement reads nothing; write SELECT …")
        return distinct_names([column[0] for column in cursor.description]), self._rows(cursor)

    def _rows(self, cursor: Any) -> Iterator[Row]:
        try:
            yield from cursor
        except (sqlite3.Error, MemoryError, OverflowError) as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> Usage:
        said = str(error) or type(error).__name__
        if "interrupted" in said and not self._is_late():  # SQLite's word for Ctrl-C, too
            raise KeyboardInterrupt
        if "interrupted" in said:
            return Usage(f"the statement took over {self.seconds:g} s and was ended; narrow it down")
        if any(sign in said for sign in ("not authorized", "prohibited", "readonly", "too many attached")):
            return Usage(f"{said}: only SELECT over {', '.join(sorted(self.tables))} is allowed; nothing was changed")
        if "no such table" in said or "no such column" in said:
            return Usage(f"{said}; `ct query --tables` lists tables and columns")
        return Usage(f"SQL: {said}")
