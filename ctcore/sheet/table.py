"""① A file's bytes as a header and rows of text, by its ending; csv and tsv here, in UTF-8 with or without BOM."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from ctcore.errors import SheetError
from ctcore.sheet.values import CONTROL, control_characters

_KINDS = {".csv": ",", ".tsv": "\t", ".txt": None}
_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons"}


@dataclass(frozen=True)
class Rows:
    """`rows` are (number of the line where it begins, cells), without blank lines; cells are stripped text."""

    header: list[str]
    rows: list[tuple[int, list[str]]]
    problems: list[str]
    lenient: bool = False  # a format with fields of its own: what ct.toml does not declare is not taken
    notes: tuple[str, ...] = ()


def read_table(path: Path, tab: str | None = None) -> Rows:
    """Read the file; SheetError where nothing can be read at all."""
    ending = path.suffix.lower()
    _refuse_others(path)
    if tab is not None and ending != ".xlsx":
        raise SheetError(str(path), ["only an .xlsx workbook has tabs; leave out the tab"])
    if ending == ".xlsx":
        from ctcore.sheet.xlsx import read_workbook

        header, rows, problems = read_workbook(path, tab)
        return Rows(header, rows, problems)
    if ending in (".ped", ".fam"):
        from ctcore.sheet.ped import HEADER, read_ped

        rows, problems = read_ped(decoded(path))
        return Rows(HEADER, rows, problems, lenient=True)
    if ending == ".json":
        from ctcore.sheet.phenopacket import read_phenopackets

        header, rows, problems, notes = read_phenopackets(decoded(path), str(path))
        return Rows(header, rows, problems, lenient=True, notes=notes)
    if ending not in _KINDS:
        kind = path.suffix or "without an ending"
        known = ".csv, .tsv, .xlsx, .ped or .json (phenopackets)"
        raise SheetError(str(path), [f"a sheet is a file {known}, not {kind}; export it as CSV UTF-8"])
    return _delimited(path)


def _refuse_others(path: Path) -> None:
    """SheetError of what is there and no regular file: a pipe is waited for, and a device may never end."""
    try:
        mode = path.stat().st_mode
    except OSError:  # whoever reads it says so
        return
    if S_ISDIR(mode):
        raise SheetError(str(path), ["it is a folder; name a sheet in it"])
    if not S_ISREG(mode):
        raise SheetError(str(path), ["it is no regular file, but a pipe or a device; save it as a file first"])


def _delimited(path: Path) -> Rows:
    text = decoded(path)
    first = next((line for line in text.splitlines() if line.strip()), None)
    if first is None:
        raise SheetError(str(path), ["the file is empty; a header line and one row an assay are expected"])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(path, first), strict=True)
    header: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    problems: list[str] = []
    before = 0
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if not header:
                header = stripped
            elif any(stripped):
                rows.append((before + 1, stripped))
            before = reader.line_num
    except csv.Error as error:
        problems.append(f"row {before + 1}: {error}; check the quotes of this row")
    for line, cells in rows:
        if len(cells) != len(header):
            problems.append(
                f"row {line}: {len(cells)} cells, but the header has {len(header)}; "
                "add or remove cells (a comma inside a cell needs quotes)"
            )
    if CONTROL.search(text):
        problems += control_characters(rows, header)
    return Rows(header, rows, problems)


def decoded(path: Path) -> str:
    """The file's text."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise SheetError(str(path), ["there is no such file; check the path"]) from None
    except OSError as error:
        raise SheetError(str(path), [f"cannot be read: {error.strerror}"]) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SheetError(str(path), [f"row {line}: byte {error.start} is not UTF-8; save the sheet as UTF-8"]) from None


def _delimiter(path: Path, header: str) -> str:
    """By the file's ending; SheetError where the header is plainly separated by something else."""
    expected = _KINDS[path.suffix.lower()] or ("\t" if "\t" in header else ",")
    found = max(_NAMES, key=header.count)
    if expected not in header and found in header:
        said = f"row 1: the columns are separated by {_NAMES[found]}; a {path.suffix} sheet has {_NAMES[expected]}"
        raise SheetError(str(path), [f"{said}: save it so, or give it the other ending (.csv, .tsv)"])
    return expected
