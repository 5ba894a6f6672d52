"""② Alembic migrations: one a change, the same on SQLite and PostgreSQL."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctcore.catalog.engine import Catalog


def upgrade(catalog: "Catalog", revision: str = "head") -> None:
    """Bring the catalog to a revision, in one transaction."""
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import text

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    with catalog.engine.connect().execution_options(ct_write=True) as connection, connection.begin():
        if not catalog.is_sqlite:
            connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{catalog.schema}"'))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
