"""Dagster's tables, on SQLite or PostgreSQL, read without Dagster: to import it takes most of a second."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from sqlalchemy import Connection, text

from ctcore.project import Project
from ctcore.projects.dagster_home import schema_of

EVENTS, RUNS = "history/runs/index.db", "history/runs.db"  # the files on SQLite, below DAGSTER_HOME


class Rows(Protocol):
    """A database of Dagster's, or a schema of one."""

    def execute(self, statement: str, /) -> Iterable[Any]: ...


@dataclass(frozen=True)
class Schema:
    """A schema of PostgreSQL, as one database of SQLite. Statements name one table, without a schema."""

    connection: Connection
    name: str

    def execute(self, statement: str, /) -> Iterable[Any]:
        return self.connection.exec_driver_sql(statement.replace(" FROM ", f' FROM "{self.name}".'))

    @property
    def tables(self) -> set[str]:
        listed = "SELECT tablename FROM pg_tables WHERE schemaname = :name"
        return set(self.connection.execute(text(listed), {"name": self.name}).scalars())


@contextmanager
def dagster_tables(project: Project, file: str) -> Iterator[Rows]:
    """The tables that are in this file on SQLite. sqlite3.Error or DBAPIError where there are none to read."""
    if project.catalog.is_sqlite:
        place = quote(str(project.dagster_home / file))
        with closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True, timeout=30)) as connection:
            yield connection
        return
    with project.catalog.engine.connect() as connection:
        yield Schema(connection, schema_of(project))
