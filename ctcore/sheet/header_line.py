"""Which line of a table is its header: reports have titles and comments above it."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from ctcore.sheet.columns import ALIASES
from ctcore.sheet.options import Options, columns_of

Row = tuple[int, list[str]]
DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons"}
_LOOKED = 50  # lines for a header
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")  # with its end, of whatever kind
_SEP = re.compile(r"\s*sep=(.)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class HeaderLine:
    """Where the header begins in a text, on which line, and what was passed over above it.

    `delimiter` is that of a line `sep=`, which Excel writes and reads.
    """

    start: int
    line: int
    text: str
    delimiter: str | None
    above: tuple[str, ...] = ()


def find_header(text: str, options: Options) -> HeaderLine | None:
    """The first line that names an ID, and is wider than those above, or else the first one with content; None where
    there is none."""
    lines = _lines(text)
    number, start, first = next(lines, (0, 0, ""))
    said = _SEP.fullmatch(first)
    if said:
        number, start, first = next(lines, (0, 0, ""))
    if not number:
        return None
    delimiter = said[1] if said else None
    some = [(number, start, first), *islice(lines, _LOOKED)]
    read = [(at, [_cells(line, one) for one in ([delimiter] if delimiter else DELIMITERS)]) for at, _, line in some]
    header, above = header_among(read, options)
    at, begin, text = next(one for one in some if one[0] == header)
    return HeaderLine(begin, at, text, delimiter, tuple(line.strip() for number, _, line in some if number in above))


def header_among(rows: Iterable[tuple[int, Sequence[Sequence[str]]]], options: Options) -> tuple[int, list[int]]:
    """The number of the row that is the header, and of those above it; 0 where there is no row.

    Each row has content, and is given in every way that it may be read.
    """
    above, widest = list[int](), 0
    for number, read in islice(rows, _LOOKED + 1):
        named = max((_filled(cells) for cells in read if names_ids(cells, options)), default=0)
        if named:  # a row below another header has as many cells as that
            return (number, above) if named > widest else ((above or [number])[0], [])
        is_comment = any(cells and cells[0].startswith("#") for cells in read)
        widest = max(widest, 0 if is_comment else max(map(_filled, read)))
        above.append(number)
    return (above or [0])[0], []


def names_ids(cells: Sequence[str], options: Options) -> bool:
    """Whether these are a header: one of them is an ID, or all that an ID is made from are there."""
    named = {(options.name_of(cell) or "").lower() for cell in without_hash(cells)}
    ours = {ALIASES.get(name, name) for name in named}
    made = [columns_of(template) for template in options.make.values()]
    return bool(ours & {*ALIASES.values()}) or any(columns and ours.issuperset(columns) for columns in made)


def without_hash(cells: Sequence[str]) -> list[str]:
    """The names of a header that begins with `#`, as VCF and BED have it."""
    return [cells[0].lstrip("# "), *cells[1:]] if cells and cells[0].startswith("#") else list(cells)


def note_of_titles(above: Sequence[str], line: int) -> list[str]:
    """What is said of lines above a header."""
    many = len(above)
    said = f"{many} line{'s' * (many != 1)} above the header (line {line}) {'are' if many != 1 else 'is'} passed over"
    return [f"{said}: {above[0]:.80}{', …' * (many != 1)}"] if above else []


def without_comments(header: Sequence[str], rows: Sequence[Row], options: Options) -> tuple[list[Row], list[str]]:
    """Without rows that begin with `#` and are no row of the table; they are said."""
    is_id = bool(header) and names_ids(header[:1], options)
    comments = [
        line
        for line, cells in rows
        if cells and cells[0].startswith("#") and (is_id or len(cells) != len(header) or not any(cells[1:]))
    ]
    if not comments:
        return [*rows], []
    listed, gone = ", ".join(map(str, comments[:10])) + ", …" * (len(comments) > 10), set(comments)
    said = f"row{'s' * (len(comments) > 1)} {listed}: passed over, a comment begins with #"
    return [row for row in rows if row[0] not in gone], [said]


def _lines(text: str) -> Iterator[tuple[int, int, str]]:
    """Lines with content: their numbers, and where they begin."""
    for number, line in enumerate(LINE.finditer(text), 1):
        if line[0].strip():
            yield number, line.start(), line[0].rstrip("\r\n")


def _filled(cells: Sequence[str]) -> int:
    return sum(map(bool, cells))


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []
