"""Where Dagster keeps its runs and events."""

from pathlib import Path

from ct_instance import dagster_schema
from ctcore.catalog.engine import Catalog

IDS = ("lung", "lung-dagster", "a" * 52 + "-dagster", "a" * 52, "b" * 59, "b" * 60, "b" * 64)


def test_no_project_shares_a_schema_with_another_or_with_dagster(tmp_path: Path) -> None:
    catalogs = [Catalog("postgresql://nobody@localhost/none", one, tmp_path / "p.jsonl").schema for one in IDS]
    schemas = [*catalogs, *map(dagster_schema, catalogs)]
    assert len({name[:63] for name in schemas}) == 2 * len(IDS)
    assert max(map(len, schemas)) <= 63  # PostgreSQL cuts longer names silently
