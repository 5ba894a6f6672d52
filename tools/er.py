"""The catalog as a page: a picture of its tables (Mermaid, which code hosts draw) and every column, from the tables.

python -m tools.er > docs/catalog.md
"""

from typing import Any

from sqlalchemy import Column, ForeignKey, Table

from ctcore.catalog.tables import metadata

HEAD = """# The catalog's tables
Made from `ctcore/catalog/tables.py` by `python -m tools.er > docs/catalog.md`. The tables are the same on SQLite and
PostgreSQL. Read them with any SQL tool, and change nothing by hand: `ct verify` names every row that is not what the
events say. `ct query` reads views over what may be seen ([reading.md](reading.md)).
"""


def page() -> str:
    """The whole page, in Markdown."""
    tables = list(metadata.tables.values())
    lines = [HEAD, "```mermaid", "erDiagram", *(line for table in tables for line in _relations(table))]
    for table in tables:
        lines += [f"    {table.name} {{", *(f"        {_word(one)}" for one in table.columns), "    }"]
    lines += ["```", ""]
    for table in tables:
        lines += [f"## {table.name}", "| column | type | |", "|---|---|---|", *map(_row, table.columns), ""]
    return "\n".join(lines)


def _relations(table: Table) -> list[str]:
    keys = sorted(table.foreign_keys, key=lambda one: str(one.parent.name))
    return [f"    {one.column.table.name} ||--o{{ {table.name} : {one.parent.name}" for one in keys]


def _word(column: Column[Any]) -> str:
    marks = ["PK"] * column.primary_key + ["FK"] * bool(column.foreign_keys)
    return f"{str(column.type).lower()} {column.name} {', '.join(marks)}".rstrip()


def _row(column: Column[Any]) -> str:
    said = [column.comment or ""]
    said += [_of(one) for one in column.foreign_keys]
    said += ["part of the primary key"] * column.primary_key + ["may be NULL"] * bool(column.nullable)
    return f"| `{column.name}` | {str(column.type).lower()} | {'; '.join(filter(None, said))} |"


def _of(key: ForeignKey) -> str:
    return f"→ `{key.column.table.name}.{key.column.name}`"


if __name__ == "__main__":
    print(page(), end="")
