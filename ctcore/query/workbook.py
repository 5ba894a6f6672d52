"""Tables as an .xlsx workbook, written row by row: openpyxl keeps none of them."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol
from zipfile import ZIP_DEFLATED, ZipFile

from ctcore.errors import Usage

EXTRA = "pip install 'ct-cohort[tables]'"
SHEET_ROWS, SHEET_COLUMNS, CELL_LETTERS = 1_048_576, 16_384, 32_767  # what a sheet holds (Excel's specification)
DIGITS, LARGEST = 10**15, 9.99e307  # a sheet's numbers have 15 digits, and end a little later
NAME_LETTERS = 24  # of 31, the rest for a number
# Letters that XML 1.0 cannot hold, not even escaped (section 2.2); \t, \n and \r it can.
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")


class Worksheet(Protocol):
    """One worksheet: a name, column heads and rows."""

    name: str

    @property
    def heads(self) -> list[str]: ...

    def rows(self) -> Iterator[Sequence[Any]]: ...


def write_workbook(path: Path, tables: Sequence[Worksheet]) -> None:
    """All tables in one file, each on as many sheets as it needs."""
    try:
        import openpyxl
    except ImportError:
        raise Usage(f"xlsx needs openpyxl: {EXTRA}, or --format csv") from None
    for table in tables:
        if len(table.heads) > SHEET_COLUMNS:
            raise Usage(f"{table.name} has {len(table.heads)} columns, a sheet {SHEET_COLUMNS}: use csv or parquet")
    book = openpyxl.Workbook(write_only=True)
    with ExitStack() as stack:
        stack.callback(_end, book)
        cut = sum(_sheets(book, table) for table in tables)
        _save(book, path)
    if cut:
        print(f"{cut} cells were cut to the {CELL_LETTERS} letters that a cell holds", file=sys.stderr)


def _save(book: Any, path: Path) -> None:
    """As `book.save` does; on a full disk, the archive is closed here and not when it is collected."""
    from openpyxl.writer.excel import ExcelWriter

    archive = ZipFile(path, "w", ZIP_DEFLATED, allowZip64=True)
    try:
        ExcelWriter(book, archive).save()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            archive.close()
        raise


def _end(book: Any) -> None:
    """On a full disk openpyxl's writers fail once more when they end; left to be collected, each prints a traceback."""
    for sheet in book.worksheets:
        parts: tuple[Any, Any] = (sheet, getattr(getattr(sheet, "_writer", None), "xf", None))
        for part in parts:
            with suppress(Exception):  # whatever it says, it was said
                part.close()
    book.close()


def _sheets(book: Any, table: Worksheet) -> int:
    """One table. Returns how many cells were cut."""
    rows, number, cut = table.rows(), 1, 0
    first = next(rows, None)
    while first is not None or number == 1:
        sheet = book.create_sheet(table.name[:NAME_LETTERS] + (f" {number}" if number > 1 else ""))
        sheet.append([_cell(sheet, head) for head in table.heads])
        for row in chain(() if first is None else (first,), islice(rows, SHEET_ROWS - 2)):
            sheet.append([_cell(sheet, value) for value in row])
            cut += sum(isinstance(value, str) and len(value) > CELL_LETTERS for value in row)
        first, number = next(rows, None), number + 1
    return cut


def _cell(sheet: Any, value: Any) -> Any:
    """Text is marked as text, or `=…` would be a formula."""
    if isinstance(value, float) and not abs(value) < LARGEST:
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= DIGITS:
        value = str(value)
    if not isinstance(value, str | bytes):
        return value
    text = _NO_XML.sub("\ufffd", value.hex() if isinstance(value, bytes) else value)[:CELL_LETTERS]
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # XML knows one end of a line
    # openpyxl takes `=…` for a formula, and `#N/A` and its like for an error value (`ERROR_CODES`).
    if not text.startswith(("=", "#")):
        return text
    from openpyxl.cell import WriteOnlyCell

    cell = WriteOnlyCell(sheet, text)
    cell.data_type = "s"
    return cell
