"""`python -m ctcore.catalog.migrations MESSAGE`: write a new migration from the difference to tables.py; without a
message: write from the migrations what makes a new catalog."""

import sys
import tempfile
from pathlib import Path

from ctcore.catalog.engine import HEAD, Catalog
from ctcore.catalog.migrations import config_of, upgrade, write_new


def main(message: str) -> None:
    from alembic import command

    config = config_of()
    number = f"{int(HEAD) + 1:04d}"
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog(f"sqlite:///{folder}/catalog.db", "new-migration", Path(folder, "provenance.jsonl"))
        upgrade(catalog)
        with catalog.engine.connect() as connection:
            config.attributes["connection"] = connection
            command.revision(config, message, autogenerate=True, rev_id=number)
    print(f'read what it wrote, then set HEAD = "{number}" in ctcore/catalog/engine.py, and run this without a message')


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit('usage: python -m ctcore.catalog.migrations ["what changes"]')
    main(sys.argv[1]) if sys.argv[1:] else write_new()
