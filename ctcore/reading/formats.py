"""⑦ How a table is written: csv, tsv, json, parquet, xlsx, a part at a time. Text stays text in every program."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from ctcore.errors import Usage
from ctcore.reading.table import Row, View
from ctcore.reading.workbook import EXTRA, write_workbook

FORMATS = ("csv", "tsv", "json", "parquet", "xlsx")
TOGETHER = ("json", "xlsx")  # hold several tables in one file
AT_ONCE = 20_000  # rows of a part
_FORMULA = re.compile(r"[\s\0]*[=+\-@]|[\t\r\n]")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class Counted:
    """A table whose rows are counted as they are written."""

    def __init__(self, view: View) -> None:
        self.name, self.columns, self._view, self.count = view.name, view.columns, view, 0

    @property
    def heads(self) -> list[str]:
        return self._view.heads

    def rows(self) -> Iterator[Row]:
        for row in self._view.rows():
            self.count += 1
            yield row


def write(kind: str, path: Path, tables: Sequence[Counted], exact: bool) -> None:
    """One file; of formats that are not in TOGETHER, of one table."""
    if kind == "xlsx":
        write_workbook(path, tables)
    elif kind == "parquet":
        _parquet(path, tables[0])
    else:
        with path.open("w", newline="", encoding="utf-8", errors="replace") as stream:
            write_text(kind, stream, tables, exact)


def write_text(kind: str, stream: TextIO, tables: Sequence[Counted], exact: bool) -> None:
    """csv, tsv or json into a stream."""
    if kind == "json":
        _json(stream, tables)
        return
    writer = csv.writer(stream, delimiter="\t" if kind == "tsv" else ",", lineterminator="\n")
    writer.writerow([_cell(head, exact) for head in tables[0].heads])
    writer.writerows([_cell(value, exact) for value in row] for row in tables[0].rows())


def _cell(value: Any, exact: bool) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.hex()
    return value if exact or not isinstance(value, str) else inert(value)


def inert(text: str) -> str:
    """A text that a spreadsheet would run as a formula, with an apostrophe before it (OWASP, CSV injection)."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _json(stream: TextIO, tables: Sequence[Counted]) -> None:
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


def _parquet(path: Path, table: Counted) -> None:
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
    """Values as their column has them; what cannot be so is nothing in a column of numbers."""
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
