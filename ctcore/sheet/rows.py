"""A file's bytes as a header and rows of text, by its ending; csv and tsv here, in UTF-8 with or without BOM, or in
UTF-16 with one."""

import codecs
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from ctcore.errors import SheetError
from ctcore.model.values import CONTROL, control_characters
from ctcore.sheet.header_line import DELIMITERS, find_header, note_of_titles, without_comments, without_hash
from ctcore.sheet.illumina import COLUMNS, find_samples
from ctcore.sheet.options import EVERY, Options

_SHOWN = 20  # rows in one problem or note
_KINDS = {".csv": ",", ".tsv": "\t", ".txt": None}


@dataclass(frozen=True)
class Rows:
    """`rows` are (number of the line where it begins, cells), without blank lines; cells are stripped text.

    `odd` are cells, by line and position, that a person sees otherwise in the workbook, and how. `is_sheet`: it is one,
    and can be read in other ways; not the words of a command.
    """

    header: list[str]
    rows: list[tuple[int, list[str]]]
    problems: list[str]
    lenient: bool = False  # a format with fields of its own: what ct.toml does not declare is not taken
    notes: tuple[str, ...] = ()
    has_decimal_commas: bool = False
    odd: Mapping[tuple[int, int], str] = field(default_factory=dict)
    made: tuple[str, ...] = ()  # columns that were made by a template while the file was read
    id_hint: str = ""  # another way out where a patient's ID is none
    files: Mapping[int, str] = field(default_factory=dict)  # of a folder: the file of each row
    is_sheet: bool = True
    header_row: int = 1
    reading: Options = field(default_factory=Options)  # how this format is read, unless it is said otherwise


def rows_named(lines: Sequence[int]) -> str:
    """`row 2`, `rows 2, 3`; of many, the first ones and how many there are."""
    listed = ", ".join(map(str, lines[:_SHOWN])) + (f", … ({len(lines):,} rows)" if len(lines) > _SHOWN else "")
    return f"row{'s' * (len(lines) > 1)} {listed}"


def read_table(path: Path, options: Options | None = None) -> Rows:
    """Read the file, or a folder of phenopackets. SheetError if nothing can be read at all."""
    options = options or Options()
    ending, tab = path.suffix.lower(), options.tab
    if path.is_dir() and (files := files_of(path)):
        return _of_folder(path, files, options)
    refuse_others(path)
    if tab is not None and ending != ".xlsx":
        raise SheetError(str(path), ["only an .xlsx workbook has tabs; leave out the tab"])
    if ending == ".xlsx":
        from ctcore.sheet.xlsx import read_workbook

        return read_workbook(path, options)
    if ending in (".ped", ".fam"):
        from ctcore.sheet.pedigree import read_ped

        return read_ped(decode_text(path), options.make.get("patient_id"))
    if ending == ".json":
        return _of_packets([decode_text(path)], path, options)
    if ending not in _KINDS:
        kind = path.suffix or "without an ending"
        known = ".csv, .tsv, .xlsx, .ped or .json (phenopackets)"
        raise SheetError(str(path), [f"a sheet is a file {known}, not {kind}; export it as CSV UTF-8"])
    return _delimited(path, options)


def files_of(folder: Path) -> list[Path]:
    """The phenopackets of a folder, in the order of their names."""
    return sorted(path for path in folder.glob("*.json") if path.is_file())


def _of_packets(texts: Sequence[str], path: Path, options: Options, names: Sequence[str] = ()) -> Rows:
    from ctcore.sheet.phenopacket import read_phenopackets

    by_packet = any(theirs.lower() == "id" and ours == "patient_id" for theirs, ours in options.map.items())
    return read_phenopackets(texts, str(path), by_packet=by_packet, names=names)


def _of_folder(folder: Path, files: Sequence[Path], options: Options) -> Rows:
    """All files of a folder as one sheet; SheetError with the problems of those that cannot be read."""
    texts, problems = list[str](), list[str]()
    for path in files:
        try:
            texts.append(decode_text(path))
            _of_packets(texts[-1:], path, options)
        except SheetError as error:
            problems += [f"{path.name}: {said}" for said in error.problems]
    if problems:
        raise SheetError(str(folder), problems)
    return _of_packets(texts, folder, options, [path.name for path in files])


def refuse_others(path: Path) -> None:
    """SheetError for pipes and devices: reading a pipe waits, and a device may never end."""
    try:
        mode = path.stat().st_mode
    except OSError:  # whoever reads it says so
        return
    if S_ISDIR(mode):
        raise SheetError(str(path), ["it is a folder; name a sheet in it"])
    if not S_ISREG(mode):
        raise SheetError(str(path), ["it is no regular file, but a pipe or a device; save it as a file first"])


def _delimited(path: Path, options: Options) -> Rows:
    text = decode_text(path)
    samples = find_samples(text)
    if isinstance(samples, str):
        raise SheetError(str(path), [samples])
    part = text[samples.start : samples.end] if samples else text
    header = find_header(part, options)
    if header is None:
        what = f"the section [{samples.section}]" if samples else "the file"
        raise SheetError(str(path), [f"{what} is empty; a header line and one row an assay are expected"])
    line = header.line + (samples.line - 1 if samples else 0)
    table = _table(part[header.start :], header.delimiter or _delimiter(path, header.text, line), line, options)
    notes = [*note_of_titles(header.above, line), *table.notes]
    if samples is None:
        return replace(table, notes=tuple(notes))
    others = ", ".join(f"[{name}]" for name in samples.others)
    said = f"the table of [{samples.section}] is read" + (f", and not {others}" if others else "")
    return replace(table, notes=(f"an Illumina sample sheet: {said}", *notes), reading=_of_illumina(options))


def _of_illumina(options: Options) -> Options:
    """How a sample sheet is read, unless it is said otherwise."""
    named = {ours.lower() for ours in options.map.values()}
    return Options({theirs: ours for theirs, ours in COLUMNS.items() if ours not in named}, (EVERY,))


def _table(text: str, delimiter: str, first: int, options: Options) -> Rows:
    """The rows of a table that begins with its header, in line `first` of the file."""
    # strict: without it, an open quote makes one cell of all lines that follow, without an error. newline="": ends of
    # lines within quotes stay as they are (docs.python.org, csv, footnote 1).
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    problems: list[str] = []
    before = first - 1
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if not header and any(stripped):
                header = without_hash(stripped)
            elif any(stripped):
                rows.append((before + 1, stripped))
            before = first - 1 + reader.line_num
    except csv.Error as error:
        problems.append(f"row {before + 1}: {error}; check the quotes of this row")
    header, rows = _without_blank_ends(header, rows)
    rows, notes = without_comments(header, rows, options)
    for line, cells in rows:
        if len(cells) != len(header):
            problems.append(
                f"row {line}: {len(cells)} cells, but the header has {len(header)}; "
                "add or remove cells (a comma inside a cell needs quotes)"
            )
    if CONTROL.search(text):
        problems += control_characters(rows, header)
    if delimiter == ";":
        notes.append(
            "the columns are separated by semicolons: in numbers, a comma is read as a point; 01.02.2024 is a day"
        )
    return Rows(header, rows, problems, notes=tuple(notes), has_decimal_commas=delimiter == ";", header_row=first)


def _without_blank_ends(
    header: Sequence[str], rows: Sequence[tuple[int, list[str]]]
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Without columns at the end that have neither a name nor a value, and blank cells behind the last column."""
    width = len(header)
    while width and not header[width - 1] and not any(any(cells[width - 1 : width]) for _, cells in rows):
        width -= 1
    return list(header[:width]), [(line, cells if any(cells[width:]) else cells[:width]) for line, cells in rows]


def with_blanks(table: Rows, words: Sequence[str]) -> Rows:
    """The table where a cell that is one of these words is blank."""
    if not words:
        return table
    blank = {*words}
    return replace(
        table, rows=[(line, ["" if cell in blank else cell for cell in cells]) for line, cells in table.rows]
    )


def decode_text(path: Path) -> str:
    """The file's text."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise SheetError(str(path), ["there is no such file; check the path"]) from None
    except OSError as error:
        raise SheetError(str(path), [f"cannot be read: {error.strerror}"]) from error
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data.decode("utf-16")
        if of_windows := _without_bom(data):
            return data.decode(of_windows)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        said = f"row {line}: byte {error.start} is not {error.encoding.upper()}; save the sheet as UTF-8"
        raise SheetError(str(path), [said]) from None


def _without_bom(data: bytes) -> str | None:
    """The kind of UTF-16 of a text without BOM: in most of the West's letters, every other byte is 0."""
    even, odd = data[:400:2].count(0), data[1:400:2].count(0)
    if len(data) % 2 or not (even or odd):
        return None
    half = len(data[:400]) // 2
    return "utf-16-le" if not even and odd > half * 0.7 else "utf-16-be" if not odd and even > half * 0.7 else None


def _delimiter(path: Path, header: str, line: int) -> str:
    """By the file's ending; SheetError where the header is plainly separated by something else.

    Semicolons are taken as they are: where numbers have a decimal comma, Excel has no other .csv.
    """
    expected = _KINDS[path.suffix.lower()] or ("\t" if "\t" in header else ",")
    found = max(DELIMITERS, key=header.count)
    if found == ";" and expected not in header and found in header:
        return found
    if expected not in header and found in header:
        said = f"row {line}: the columns are separated by {DELIMITERS[found]}"
        way = f"a {path.suffix} sheet has {DELIMITERS[expected]}: save it so, or give it the other ending (.csv, .tsv)"
        raise SheetError(str(path), [f"{said}; {way}"])
    return expected
