"""Alembic migrations: one a change, the same on SQLite and PostgreSQL."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ctcore.catalog.engine import Catalog

_NEW = Path(__file__).with_name("new.sql")
_ANY = "SELECT 1 FROM sqlite_master LIMIT 1"
_END = ";\n"  # of a statement in new.sql


def upgrade(catalog: "Catalog", revision: str = "head") -> None:
    """Migrate the catalog to a revision, in one transaction. A second process finds it done.

    A new SQLite catalog gets the tables of all migrations at once, from new.sql: a fifth of the time, without Alembic.
    """
    from sqlalchemy import inspect, text

    catalog.make_file()
    with catalog.exclusive() as connection:
        if catalog.is_sqlite and revision == "head" and connection.exec_driver_sql(_ANY).first() is None:
            for statement in _NEW.read_text().removesuffix(_END).split(_END):
                connection.exec_driver_sql(statement)
            return
        if not catalog.is_sqlite and not inspect(connection).has_schema(catalog.schema):
            connection.execute(text(f'CREATE SCHEMA "{catalog.schema}"'))
        _migrate(connection, revision)


def _migrate(connection: "Connection", revision: str) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import inspect

    from ctcore.catalog import result_triggers
    from ctcore.catalog.schema_triggers import applied_schema, enforce, relax

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    levels = applied_schema(connection) if inspect(connection).has_table("setting") else None
    if levels is not None:
        relax(connection)  # a table that SQLite makes anew loses its triggers without a word
    command.upgrade(config, revision)
    if levels is not None:
        enforce(connection, levels)
        if analyses := result_triggers.applied_analyses(connection):
            result_triggers.enforce(connection, analyses)


def tables_of_all() -> str:
    """The content of new.sql: what all migrations, one after the other, make of an empty SQLite database."""
    from sqlalchemy import create_engine

    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        _migrate(connection, "head")
        made = connection.exec_driver_sql(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"
        ).scalars()
        version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
        statements = [*made, f"INSERT INTO alembic_version VALUES ('{version}')"]
    engine.dispose()
    return "".join(f"{statement}{_END}" for statement in statements)


def write_new() -> None:
    """Write new.sql from the migrations."""
    _NEW.write_text(tables_of_all())
