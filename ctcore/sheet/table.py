"""① A sheet's bytes as a header and rows of text: csv or tsv, UTF-8 with or without BOM."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from ctcore.errors import SheetError

_KINDS = {".csv": ",", ".tsv": "\t", ".txt": None}


@dataclass(frozen=True)
class Rows:
    """`rows` are (line number, cells), without blank lines; cells are stripped text."""

    header: list[str]
    rows: list[tuple[int, list[str]]]
    problems: list[str]


def read_table(path: Path) -> Rows:
    """Read the file; SheetError where nothing can be read at all."""
    text = _text(path)
    lines = text.splitlines()
    if not lines or not text.strip():
        raise SheetError(str(path), ["the file is empty; a header line and one row an assay are expected"])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(path, lines[0]), strict=True)
    header: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    problems: list[str] = []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if not header:
                header = stripped
            elif any(stripped):
                rows.append((reader.line_num - "".join(cells).count("\n"), stripped))
    except csv.Error as error:
        problems.append(f"row {reader.line_num}: {error}; check the quotes of this row")
    for line, cells in rows:
        if len(cells) != len(header):
            problems.append(
                f"row {line}: {len(cells)} cells, but the header has {len(header)}; "
                "add or remove cells (a comma inside a cell needs quotes)"
            )
    if "\0" in text or any(ord(c) < 32 and c not in "\t\r\n" for c in set(text)):
        problems += _control_characters(rows, header)
    return Rows(header, rows, problems)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise SheetError(str(path), ["there is no such file; check the path"]) from None
    except OSError as error:
        raise SheetError(str(path), [f"cannot be read: {error.strerror}"]) from error
    if path.suffix.lower() not in _KINDS:
        raise SheetError(str(path), [f"a sheet is a .csv or .tsv file, not {path.suffix or 'without an ending'}"])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SheetError(str(path), [f"row {line}: byte {error.start} is not UTF-8; save the sheet as UTF-8"]) from None


def _delimiter(path: Path, header: str) -> str:
    return _KINDS[path.suffix.lower()] or ("\t" if "\t" in header else ",")


def _control_characters(rows: list[tuple[int, list[str]]], header: list[str]) -> list[str]:
    found = [
        f"row {line}, column {name}: {cell!r:.80} has a control character; remove it"
        for line, cells in [(1, header), *rows]
        for name, cell in zip(header, cells, strict=False)
        if any(ord(c) < 32 or ord(c) == 127 for c in cell)
    ]
    return found
