"""A workbook's tab as rows of text. Cells are converted as a person sees them: 0012 stays 0012, dates are ISO, 5.0
is 5."""

import datetime
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import iterparse

from ctcore.errors import SheetError
from ctcore.model.values import CONTROL
from ctcore.sheet.header_line import header_among, note_of_titles, without_comments, without_hash
from ctcore.sheet.options import Options
from ctcore.sheet.rows import Rows, rows_named

LARGEST = 1 << 30  # bytes, unpacked: a workbook is a zip file, and a small one can unpack to any size
PACKED, PLAIN = 100, 32 << 20  # beyond so many bytes, one of a workbook is no more than so many: XML packs to a tenth
CELLS = 10_000_000  # also blank ones in front of others: a row may begin at its last column
# what zipfile, the XML parser and openpyxl raise over damaged bytes; an XML error is a SyntaxError
_DAMAGED = (
    *(OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, SyntaxError),
    *(KeyError, ValueError, TypeError, IndexError, AttributeError),
)
# Excel's own limits (support.microsoft.com, Excel specifications and limits).
LAST = (1 << 20, 1 << 14)  # row and column
_ERRORS = {"#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!"}


@dataclass
class _Marks:
    """What a tab's XML says and openpyxl does not: where formulas stand, and what is hidden."""

    formulas: set[tuple[int, int]] = field(default_factory=set)
    hidden_rows: set[int] = field(default_factory=set)
    hidden_columns: list[tuple[int, int]] = field(default_factory=list)

    def notes(self, header: Sequence[str], rows: Sequence[tuple[int, list[str]]]) -> Iterator[str]:
        """Rows and columns with content that a person does not see."""
        hidden = [line for line, _ in rows if line in self.hidden_rows]
        low_high = self.hidden_columns
        names = [name for at, name in enumerate(header, 1) if any(low <= at <= high for low, high in low_high)]
        listed = f"column{'s' * (len(names) > 1)} {', '.join(names):.500}"
        for said, many in ((rows_named(hidden), len(hidden)), (listed, len(names))):
            if many:
                yield f"{said} {'are' if many > 1 else 'is'} hidden in the workbook, and read as the others"


def read_workbook(path: Path, options: Options) -> Rows:
    """A tab's rows with their numbers there, problems of single cells, and how a person sees those that are shown
    otherwise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="openpyxl")  # of looks that saving would lose: nothing is saved
        return _read(path, options)


def _read(path: Path, options: Options) -> Rows:
    values = _opened(path)
    try:
        name, others = _chosen(path, values, options.tab)
        sheet = values[name]
        marks = _marks(path, sheet)
        number, above = header_among(_filled_rows(path, sheet), options)
        header: list[str] = []
        titles: list[str] = []
        rows: list[tuple[int, list[str]]] = []
        problems: list[str] = []
        odd: dict[tuple[int, int], str] = {}
        for line, cells in enumerate(_bounded(path, sheet.iter_rows()), 1):
            texts = [_text(cell) for cell in cells]
            if line < number:
                titles += [" ".join(filter(None, texts))] if line in above else []
                continue
            problems += _problems(line, header, cells, texts, marks.formulas)
            if line == number:
                header = without_hash(_until_last(texts))
            elif any(texts):
                rows.append((line, _fitted(texts, len(header))))
                odd |= {
                    (line, at): said for at, text in enumerate(texts) if text and (said := _shown_otherwise(cells[at]))
                }
    except _DAMAGED as error:
        said = _no_numbers(values)
        raise (SheetError(str(path), said) if said else _unreadable(path, error)) from error
    finally:
        values.close()
    if not header:
        raise SheetError(str(path), ["the tab is empty; a header and one row an assay are expected"])
    rows, notes = without_comments(header, rows, options)
    problems += [
        f"row {line}: {len(cells)} cells, but the header has {len(header)}; name the columns, or empty the cells"
        for line, cells in rows
        if len(cells) != len(header)
    ]
    if others:
        notes.append(f"tab {name} is read, and not {', '.join(others)}")
    said = (*note_of_titles(titles, number), *notes, *marks.notes(header, rows))
    return Rows(header, rows, problems, odd=odd, notes=said, header_row=number)


def _filled_rows(path: Path, sheet: Any) -> Iterator[tuple[int, list[list[str]]]]:
    """Rows with content, as they are looked through for a header."""
    for line, cells in enumerate(_bounded(path, sheet.iter_rows()), 1):
        if any(texts := [_text(cell) for cell in cells]):
            yield line, [texts]


def _opened(path: Path) -> Any:
    try:
        import openpyxl
    except ModuleNotFoundError:
        said = "reading .xlsx needs openpyxl; `pip install 'ct-cohort[tables]'`, or export the sheet as CSV UTF-8"
        raise SheetError(str(path), [said]) from None
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(one.file_size for one in packed.infolist())
        if size > LARGEST or size > max(PLAIN, PACKED * path.stat().st_size):
            raise SheetError(str(path), [f"it would unpack to {size:,} bytes; export the sheet as CSV UTF-8"])
        return openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
    except FileNotFoundError:
        raise SheetError(str(path), ["there is no such file; check the path"]) from None
    except _DAMAGED as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> SheetError:
    said = getattr(error, "strerror", None) or f"it is no workbook, or is damaged ({str(error)[:80]})"
    return SheetError(str(path), [f"cannot be read: {said}; export the sheet as CSV UTF-8"])


def _no_numbers(book: Any) -> list[str]:
    """Cells marked as numbers that are none. openpyxl reports the text, but not the cell."""
    found: list[str] = []
    with suppress(*_DAMAGED):
        for sheet in book.worksheets:
            with sheet._get_source() as source:
                for cell in (one for _, one in iterparse(source) if one.tag.rpartition("}")[2] == "c"):
                    text = next((part.text for part in cell if part.tag.rpartition("}")[2] == "v"), None)
                    if cell.get("t", "n") == "n" and text and not _is_number(text):
                        place = f"tab {sheet.title}, cell {cell.get('r', '?')}"
                        said = "is marked as a number in the workbook and is none; correct it there"
                        found.append(f"{place}: {text!r:.80} {said}")
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _chosen(path: Path, book: Any, tab: str | None) -> tuple[str, list[str]]:
    """The tab that was asked for, or the only one that holds something; and others that hold something."""
    names = [sheet.title for sheet in book.worksheets]
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # what the writer says of the size is often wrong, and rows would be missing
    if tab is not None and tab not in names:
        raise SheetError(str(path), [f"no tab {tab!r:.80}; there is: {', '.join(names)}"])
    if tab is not None:
        return tab, [sheet.title for sheet in book.worksheets if sheet.title != tab and _may_have_values(path, sheet)]
    filled = [sheet.title for sheet in book.worksheets if _has_values(path, sheet)]
    if len(filled) > 1:
        raise SheetError(str(path), [f"several tabs hold something: {', '.join(filled)}; say which with --tab"])
    if not filled:
        raise SheetError(str(path), ["the workbook is empty; a header and one row an assay are expected"])
    return filled[0], []


def _may_have_values(path: Path, sheet: Any) -> bool:
    """Whether a tab that is not read holds something, as far as it can be told."""
    try:
        return _has_values(path, sheet)
    except (SheetError, *_DAMAGED):
        return True


def _has_values(path: Path, sheet: Any) -> bool:
    return any(value is not None for row in _bounded(path, sheet.iter_rows(values_only=True)) for value in row)


def _bounded(path: Path, rows: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    """The rows of a tab, as many as there can be; SheetError where all their cells are too many."""
    left = CELLS
    for row in islice(rows, LAST[0]):  # a damaged number of a row would be waited for
        left -= len(row) + 1
        if left < 0:
            raise SheetError(str(path), [f"a tab has more than {CELLS:,} cells; export the sheet as CSV UTF-8"])
        yield row


def _marks(path: Path, sheet: Any) -> _Marks:
    """Where formulas stand (one that was never calculated has no value, and would read as blank), and what is hidden.

    SheetError where a row or cell does not stand in its order: openpyxl passes over it, or over the one before.
    """
    from openpyxl.utils.cell import coordinate_to_tuple

    found = _Marks()
    line = column = 0
    with sheet._get_source() as source:
        for event, element in iterparse(source, ("start", "end")):
            name, said, stands = element.tag.rpartition("}")[2], element.get("r"), True
            if event == "end":
                if name == "sheetData":
                    break
                if name == "row":
                    element.clear()
            elif name == "row":
                before, line, column = line, int(said or line + 1), 0
                stands = before < line <= LAST[0]
                found.hidden_rows |= {line} if element.get("hidden") in ("1", "true") else set()
            elif name == "col" and element.get("hidden") in ("1", "true"):
                found.hidden_columns.append((int(element.get("min", 0)), int(element.get("max", 0))))
            elif name == "c":
                before, (row, column) = column, coordinate_to_tuple(said) if said else (line, column + 1)
                stands = row == line and before < column <= LAST[1]
            elif name == "f":
                found.formulas.add((line, column))
            if not stands:
                way = "the workbook is damaged: save it anew, or export the sheet as CSV UTF-8"
                what = "it" if name == "row" else f"cell {said!r:.80}"
                raise SheetError(str(path), [f"row {line}: {what} is not in its place; {way}"])
    return found


def _problems(
    line: int, header: Sequence[str], cells: Sequence[Any], texts: Sequence[str], formulas: set[tuple[int, int]]
) -> Iterator[str]:
    # A row can have 16,384 cells, nearly all of them empty.
    for at in (at for at, text in enumerate(texts) if text or formulas):
        cell, text = cells[at], texts[at]
        where = f"row {line}, column {header[at] if at < len(header) else at + 1}"
        if text in _ERRORS and getattr(cell, "data_type", "") == "e":
            yield f"{where}: {text} is an error of a formula or a date; put the value there"
        elif cell.value is None and (line, at + 1) in formulas:
            yield f"{where}: a formula that was never calculated; open and save the workbook, or put the value there"
        elif CONTROL.search(text):
            yield f"{where}: {text!r:.80} has a control character; remove it"


def _text(cell: Any) -> str:
    """A cell as it would stand in a CSV."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time()
        return value.date().isoformat() if midnight else value.isoformat(sep=" ")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    # Excel keeps 15 digits of a number (specifications and limits): of a longer one, the last are not those typed.
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, int):
        return _padded(value, str(getattr(cell, "number_format", "") or ""))
    return str(value).strip()


def _shown_otherwise(cell: Any) -> str | None:
    """What a person sees of a date or a formatted number is not its text here, and may be an ID that Excel changed."""
    value = cell.value
    if isinstance(value, datetime.date | datetime.time):
        return "a date"
    shown_as = str(getattr(cell, "number_format", "") or "General")
    if isinstance(value, bool) or not isinstance(value, int | float) or re.fullmatch(r"General|@|0+", shown_as):
        return None
    return f"a number in the format {shown_as}"


def _padded(value: int, shown_as: str) -> str:
    """A number that the format 0000 shows as 0012 was typed as an ID, and is one."""
    zeros = re.fullmatch(r"0{2,}", shown_as)
    return str(value).zfill(len(shown_as)) if zeros and value >= 0 else str(value)


def _until_last(texts: list[str]) -> list[str]:
    while texts and not texts[-1]:
        texts = texts[:-1]
    return texts


def _fitted(texts: list[str], width: int) -> list[str]:
    return [*_until_last(texts), *[""] * width][: max(width, len(_until_last(texts)))]
