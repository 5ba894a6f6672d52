"""⑦ Tables as an .xlsx workbook, written as they come: nothing is kept, so a cohort of any size takes the same memory.

Text is written as text where it stands (`inlineStr`), so that no cell is a formula. ECMA-376, part 1, 18.3.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, islice, product
from pathlib import Path
from typing import IO, Any, Protocol
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from ctcore.errors import Usage

SHEET_ROWS, SHEET_COLUMNS, CELL_LETTERS = 1_048_576, 16_384, 32_767  # what a sheet holds (Excel's specification)
DIGITS = 10**15  # a sheet's numbers have 15
NAME_LETTERS = 24  # of 31, the rest for a number
_AT_ONCE = 500  # rows that are written together
_BYTES = 1 << 30  # of a sheet; from 2 GiB on, the archive would need extensions over which Excel complains
_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_RELATED = f"{_PACKAGE}/relationships"
_RELS = "application/vnd.openxmlformats-package.relationships+xml"
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_TO_ESCAPE = re.compile("[&<>\r]")
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
_ESCAPED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}


class Tabled(Protocol):
    """What is written: a name, column heads and rows."""

    name: str

    @property
    def heads(self) -> list[str]: ...

    def rows(self) -> Iterator[Sequence[Any]]: ...


def write_workbook(path: Path, tables: Sequence[Tabled]) -> None:
    """All tables in one file, each on as many sheets as it needs."""
    for table in tables:
        if len(table.heads) > SHEET_COLUMNS:
            raise Usage(f"{table.name} has {len(table.heads)} columns, a sheet {SHEET_COLUMNS}: use csv or parquet")
    with ZipFile(path, "w", ZIP_DEFLATED) as book:
        writer = _Writer(book)
        for table in tables:
            writer.table(table)
        writer.contents()
    if writer.cut:
        print(f"{writer.cut} cells were cut to the {CELL_LETTERS} letters that a cell holds", file=sys.stderr)


class _Writer:
    def __init__(self, book: ZipFile) -> None:
        self.book, self.cut = book, 0
        self.sheets: list[str] = []
        office = f'<Relationship Id="rId1" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/>'
        self._part("_rels/.rels", f'<Relationships xmlns="{_RELATED}">{office}</Relationships>')

    def table(self, table: Tabled) -> None:
        rows, number = table.rows(), 1
        first = next(rows, None)
        while first is not None or number == 1:
            name = table.name[:NAME_LETTERS] + (f" {number}" if number > 1 else "")
            self._sheet(name, table.heads, rows if first is None else chain((first,), rows))
            first, number = next(rows, None), number + 1

    def _sheet(self, name: str, heads: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
        """As many rows as a sheet holds."""
        self.sheets.append(name)
        columns, at, written = _columns(len(heads)), 2, 0
        with self._opened(f"xl/worksheets/sheet{len(self.sheets)}.xml") as stream:
            start = f'{_HEAD}<worksheet xmlns="{_MAIN}"><sheetData>\n{self._row(1, columns, heads)}'
            stream.write(start.encode())
            while written < _BYTES and (some := list(islice(rows, min(_AT_ONCE, SHEET_ROWS + 1 - at)))):
                text = [self._row(number, columns, row) for number, row in enumerate(some, at)]
                written += stream.write("".join(text).encode())
                at += len(some)
            stream.write(b"</sheetData></worksheet>")

    def _row(self, number: int, columns: Sequence[str], row: Sequence[Any]) -> str:
        """A cell says where it is: some readers want it, and what is blank can be left out."""
        cells = [
            f'<c r="{column}{number}"{self._said(value)}</c>'
            for column, value in zip(columns, row, strict=True)
            if value is not None
        ]
        return f'<row r="{number}">{"".join(cells)}</row>\n'

    def _said(self, value: Any) -> str:
        kind = type(value)
        if kind is bool:
            return f' t="b"><v>{value:d}</v>'
        if (kind is int and -DIGITS < value < DIGITS) or (kind is float and abs(value) < float("inf")):
            return f"><v>{value!r}</v>"
        text = value if kind is str else value.hex() if kind is bytes else str(value)
        if len(text) > CELL_LETTERS:
            self.cut, text = self.cut + 1, text[:CELL_LETTERS]
        return f' t="inlineStr"><is><t xml:space="preserve">{_escaped(text)}</t></is>'

    def contents(self) -> None:
        """What is in the file, which is known at its end."""
        numbers = range(1, len(self.sheets) + 1)
        links = (f'Id="rId{at}" Type="{_OFFICE}/worksheet" Target="worksheets/sheet{at}.xml"' for at in numbers)
        found = "".join(f"<Relationship {link}/>" for link in links)
        self._part("xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{_RELATED}">{found}</Relationships>')
        named = zip(map(_escaped, self.sheets), numbers, strict=True)
        sheets = "".join(f'<sheet name="{name}" sheetId="{at}" r:id="rId{at}"/>' for name, at in named)
        listed = f"<sheets>{sheets}</sheets>"
        self._part("xl/workbook.xml", f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}">{listed}</workbook>')
        parts = [("xl/workbook.xml", "sheet.main"), *((f"xl/worksheets/sheet{at}.xml", "worksheet") for at in numbers)]
        types = (f'PartName="/{part}" ContentType="{_TYPE}.{kind}+xml"' for part, kind in parts)
        overrides = "".join(f"<Override {one}/>" for one in types)
        default = f'<Default Extension="rels" ContentType="{_RELS}"/>'
        self._part("[Content_Types].xml", f'<Types xmlns="{_PACKAGE}/content-types">{default}{overrides}</Types>')

    def _part(self, name: str, text: str) -> None:
        with self._opened(name) as stream:
            stream.write(f"{_HEAD}{text}".encode())

    def _opened(self, name: str) -> IO[bytes]:
        """A part without a time, so that the same tables are the same bytes."""
        part = ZipInfo(name)
        part.compress_type = ZIP_DEFLATED
        return self.book.open(part, "w")


def _columns(number: int) -> list[str]:
    """A, B, … Z, AA, …"""
    letters = [chr(ord("A") + at) for at in range(26)]
    every = chain.from_iterable(map("".join, product(letters, repeat=length)) for length in (1, 2, 3))
    return list(islice(every, number))


def _escaped(text: str) -> str:
    if _NO_XML.search(text):
        text = _NO_XML.sub("\ufffd", text)
    return _TO_ESCAPE.sub(lambda found: _ESCAPED[found[0]], text) if _TO_ESCAPE.search(text) else text
