"""How a table is written: csv, tsv, json, parquet, xlsx, a part at a time. Text stays text in every program."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from ctcore.errors import Usage
from ctcore.query.table import Row, View
from ctcore.query.workbook import EXTRA, write_workbook

FORMATS = ("csv", "tsv", "json", "parquet", "xlsx")
TOGETHER = ("json", "xlsx")  # hold several tables in one file
AT_ONCE = 20_000  # rows of a part
_FORMULA = re.compile(r"[\s\0]*[=+\-@]|[\t\r\n]")
_FORMULA_MAY_BEGIN = re.compile(r"[\s\0=+\-@]")
_PLAIN = {int, float, type(None)}  # csv writes these as they are
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class CountedTable:
    """A table that counts its rows while it is written."""

    def __init__(self, view: View) -> None:
        self.name, self.columns, self._view, self.count = view.name, view.columns, view, 0

    @property
    def heads(self) -> list[str]:
        return self._view.heads

    def rows(self) -> Iterator[Row]:
        for row in self._view.rows():
            self.count += 1
            yield row


def write(kind: str, path: Path, tables: Sequence[CountedTable], exact: bool) -> None:
    """One file; of formats that are not in TOGETHER, of one table."""
    if kind == "xlsx":
        write_workbook(path, tables)
    elif kind == "parquet":
        _parquet(path, tables[0])
    else:
        with path.open("w", newline="", encoding="utf-8", errors="replace") as stream:
            write_text(kind, stream, tables, exact)


def write_text(kind: str, stream: TextIO, tables: Sequence[CountedTable], exact: bool) -> None:
    """csv, tsv or json into a stream."""
    if kind == "json":
        _json(stream, tables)
        return
    writer = csv.writer(stream, delimiter="\t" if kind == "tsv" else ",", lineterminator="\n")
    writer.writerow([_cell(head, exact) for head in tables[0].heads])
    rows = tables[0].rows()
    while part := list(islice(rows, AT_ONCE)):
        writer.writerows(zip(*(_cells(column, exact) for column in zip(*part, strict=True)), strict=True))


def _cells(column: Sequence[Any], exact: bool) -> Sequence[Any]:
    """A column's cells. Where no text begins like a formula, as nearly everywhere, no cell is looked at by itself."""
    kinds = {*map(type, column)}
    if kinds <= _PLAIN or (kinds <= _PLAIN | {str} and (exact or _has_no_formula(column))):
        return column
    return [_cell(value, exact) for value in column]


def _has_no_formula(column: Sequence[Any]) -> bool:
    return not any(map(_FORMULA_MAY_BEGIN.match, {value[:1] for value in column if value.__class__ is str}))


def _cell(value: Any, exact: bool) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.hex()
    return value if exact or not isinstance(value, str) else escape_formula(value)


def escape_formula(text: str) -> str:
    """A text that a spreadsheet would run as a formula, with an apostrophe before it (OWASP, CSV injection)."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _json(stream: TextIO, tables: Sequence[CountedTable]) -> None:
    """A list of objects; of several tables, an object of such lists."""
    one = len(tables) == 1
    stream.write("" if one else "{\n")
    for number, table in enumerate(tables):
        heads = table.heads
        stream.write("[" if one else f"{',' if number else ''}{json.dumps(table.name)}: [")
        for at, row in enumerate(table.rows()):
            said = json.dumps(dict(zip(heads, row, strict=True)), ensure_ascii=False, default=_as_text)
            stream.write(f"{',' if at else ''}\n{said}")
        stream.write("\n]\n")
    stream.write("" if one else "}\n")


def _as_text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _parquet(path: Path, table: CountedTable) -> None:
    try:
        import pyarrow as pa  # pyright: ignore[reportMissingImports]
        import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise Usage(f"parquet needs pyarrow: {EXTRA}, or --format csv") from None
    types = {"integer": pa.int64(), "real": pa.float64(), "boolean": pa.bool_(), "any": pa.string()}
    rows = table.rows()
    columns = table.columns
    if all(kind == "any" for _, kind in columns):  # of a statement: what is in it says what it is
        rows, columns = _typed(list(rows), [name for name, _ in columns])
    schema = pa.schema([(name, types.get(kind, pa.string())) for name, kind in columns])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while part := list(islice(rows, AT_ONCE)):
            listed = zip(zip(*part, strict=True), columns, strict=True)
            arrays = [pa.array(_column(values, kind), types.get(kind, pa.string())) for values, (_, kind) in listed]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _column(values: Sequence[Any], kind: str) -> list[Any]:
    """Values in their column's type; an impossible value in a column of numbers becomes null."""
    if kind == "real":
        return [float(value) if isinstance(value, int | float) else None for value in values]
    if kind in ("integer", "boolean"):
        return [value if isinstance(value, int) else None for value in values]
    return [value if value is None or isinstance(value, str) else str(_cell(value, True)) for value in values]


def _typed(rows: list[Row], names: Sequence[str]) -> tuple[Iterator[Row], tuple[tuple[str, str], ...]]:
    found = []
    for at, name in enumerate(names):
        kinds = {type(row[at]) for row in rows} - {type(None)}
        kind = "integer" if kinds == {int} else "real" if kinds and kinds <= {int, float} else "any"
        found.append((name, kind))
    return iter(rows), tuple(found)
