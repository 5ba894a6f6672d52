"""Which line of a table is its header: reports have titles and comments above it."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from ctcore.sheet.columns import ALIASES
from ctcore.sheet.options import Options, columns_of

DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons"}
_LOOKED = 50  # lines for a header
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
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
    delimiter, above = said[1] if said else None, list[str]()
    header, widest = HeaderLine(start, number, first, delimiter), 0
    for at, begin, line in [(number, start, first), *islice(lines, _LOOKED)]:
        rows = [_cells(line, one) for one in ([delimiter] if delimiter else DELIMITERS)]
        named = max((_filled(cells) for cells in rows if names_ids(cells, options)), default=0)
        if named:  # a row below another header has as many cells as that
            return HeaderLine(begin, at, line, delimiter, tuple(above)) if named > widest else header
        widest = max(widest, 0 if line.startswith("#") else max(map(_filled, rows)))
        above.append(line.strip())
    return header


def names_ids(cells: Sequence[str], options: Options) -> bool:
    """Whether these are a header: one of them is an ID, or all that an ID is made from are there."""
    named = {(options.name_of(cell) or "").lower() for cell in without_hash(cells)}
    ours = {ALIASES.get(name, name) for name in named}
    made = [columns_of(template) for template in options.make.values()]
    return bool(ours & {*ALIASES.values()}) or any(columns and ours.issuperset(columns) for columns in made)


def without_hash(cells: Sequence[str]) -> list[str]:
    """The names of a header that begins with `#`, as VCF and BED have it."""
    return [cells[0].lstrip("# "), *cells[1:]] if cells and cells[0].startswith("#") else list(cells)


def _lines(text: str) -> Iterator[tuple[int, int, str]]:
    """Lines with content: their numbers, and where they begin."""
    for number, line in enumerate(_LINE.finditer(text), 1):
        if line[0].strip():
            yield number, line.start(), line[0].rstrip("\r\n")


def _filled(cells: Sequence[str]) -> int:
    return sum(map(bool, cells))


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []
