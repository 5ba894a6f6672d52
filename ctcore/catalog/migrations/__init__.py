"""Alembic migrations: one a change, the same on SQLite and PostgreSQL."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctcore.catalog.engine import Catalog


def upgrade(catalog: "Catalog", revision: str = "head") -> None:
    """Migrate the catalog to a revision, in one transaction. A second process finds it done."""
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import inspect, text

    from ctcore.catalog import result_triggers
    from ctcore.catalog.schema_triggers import applied_schema, enforce, relax

    catalog.make_file()
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    with catalog.exclusive() as connection:
        if not catalog.is_sqlite and not inspect(connection).has_schema(catalog.schema):
            connection.execute(text(f'CREATE SCHEMA "{catalog.schema}"'))
        config.attributes["connection"] = connection
        levels = applied_schema(connection) if inspect(connection).has_table("setting") else None
        if levels is not None:
            relax(connection)  # a table that SQLite makes anew loses its triggers without a word
        command.upgrade(config, revision)
        if levels is not None:
            enforce(connection, levels)
            if analyses := result_triggers.applied_analyses(connection):
                result_triggers.enforce(connection, analyses)
