"""Alembic migrations: one a change, the same on SQLite and PostgreSQL."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

    from ctcore.catalog.engine import Catalog

BACKENDS = ("sqlite", "postgresql")
_ANY = "SELECT 1 FROM sqlite_master LIMIT 1"
_END = ";\n"  # of a statement in such a file


def upgrade(catalog: "Catalog", revision: str = "head") -> None:
    """Migrate the catalog to a revision, in one transaction. A second process finds it done.

    A new catalog gets the tables of all migrations at once, from a file: a fifth of the time, without Alembic.
    """
    from sqlalchemy import inspect, text

    catalog.make_file()
    with catalog.exclusive() as connection:
        if catalog.is_sqlite:
            is_new = connection.exec_driver_sql(_ANY).first() is None
        elif is_new := not inspect(connection).has_schema(catalog.schema):
            connection.execute(text(f'CREATE SCHEMA "{catalog.schema}"'))
        if is_new and revision == "head":
            _make(connection)
        else:
            _migrate(connection, revision)


def _make(connection: "Connection") -> None:
    written = new_file(connection.dialect.name).read_text()
    # PostgreSQL takes all of it at once; with no parameters, a % is a %.
    statements = [written] if connection.dialect.name == "postgresql" else written.removesuffix(_END).split(_END)
    for statement in statements:
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def new_file(backend: str) -> Path:
    """The statements that make a new catalog on `sqlite` or `postgresql`."""
    return Path(__file__).with_name(f"new_{backend}.sql")


def _migrate(connection: "Connection", revision: str) -> None:
    from alembic import command
    from sqlalchemy import inspect

    from ctcore.catalog import result_triggers
    from ctcore.catalog.schema_triggers import applied_schema, enforce, relax

    levels = applied_schema(connection) if inspect(connection).has_table("setting") else None
    if levels is not None:
        relax(connection)  # a table that SQLite makes anew loses its triggers without a word
    config = config_of()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    if levels is not None:
        enforce(connection, levels)
        if analyses := result_triggers.applied_analyses(connection):
            result_triggers.enforce(connection, analyses)


def config_of() -> "Config":
    """Alembic's settings: where the migrations are, and how they are called."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    return config


def tables_of_all(backend: str) -> str:
    """The content of `new_file`: what all migrations, one after the other, make of an empty database."""
    made, version = _tables_on_sqlite() if backend == "sqlite" else _tables_on_postgresql()
    statements = [*made, f"INSERT INTO alembic_version VALUES ('{version}')"]
    return "".join(f"{statement}{_END}" for statement in statements)


def _tables_on_sqlite() -> tuple[list[str], str]:
    from sqlalchemy import create_engine

    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        _migrate(connection, "head")
        listed = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"
        made = list(connection.exec_driver_sql(listed).scalars())
        version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
    engine.dispose()
    return made, version


def _tables_on_postgresql() -> tuple[list[str], str]:
    """As Alembic would send them, without a server."""
    from alembic import command
    from alembic.script import ScriptDirectory

    config, written = config_of(), io.StringIO()
    config.output_buffer = written
    config.attributes["dialect"] = "postgresql"
    command.upgrade(config, "head", sql=True)
    lines = [line for line in written.getvalue().splitlines() if line and not line.startswith("--")]
    said = "\n".join(lines).removesuffix(_END[0]).split(_END)
    # Which revision it is stands at the end only; what a migration reads of the tables is empty.
    made = [
        one for one in said if not one.startswith(("INSERT INTO alembic_version", "UPDATE alembic_version", "SELECT"))
    ]
    return made, str(ScriptDirectory.from_config(config).get_current_head())


def write_new() -> None:
    """Write the files of new catalogs from the migrations."""
    for backend in BACKENDS:
        new_file(backend).write_text(tables_of_all(backend))
