"""Regions: references whose content is intervals, as a BED file or written in ct.toml, and that may lie on another
reference. Their data version names the version of that one, so that a new genome is a new region.
"""

import gzip
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ctcore.errors import InputError
from ctcore.store.digest import digest_text
from ctcore.util.atomic_file import write_whole

Interval = tuple[str, int, int]
"""Chromosome, first base and the one behind the last, counted from 0: as in BED."""

KIND = "region"
NAMED = 3  # problems that are named; the rest is counted
CHROMOSOME = "[!-~]+"
_INTERVAL = f"({CHROMOSOME}):([0-9][0-9,]*)-([0-9][0-9,]*)"
"""An interval as text; the groups are chromosome, start and end."""
_VERSION = re.compile(r"on (?P<key>\S+) (?P<version>.*) (?P<digest>[0-9a-f]{64})")


def parse_interval(text: str) -> Interval:
    """`chr17:7,661,779-7,687,538`: both ends are included, counted from 1. ValueError names the problem."""
    found = re.fullmatch(_INTERVAL, text.strip())
    if found is None:
        raise ValueError("chromosome:start-end is expected, as in chr17:1-100000")
    start, end = (int(found[group].replace(",", "")) for group in (2, 3))
    if start < 1:
        raise ValueError("starts at 0; the first base is 1")
    if end < start:
        raise ValueError("ends before it starts")
    return found[1], start - 1, end


def overlaps(intervals: Sequence[Interval], place: Interval) -> int:
    """The number of bases of these intervals within a place; bases of two intervals count twice."""
    chrom, start, end = place
    return sum(max(0, min(end, last) - max(start, first)) for name, first, last in intervals if name == chrom)


def as_bed(intervals: Sequence[Interval]) -> str:
    return "".join(f"{chrom}\t{start}\t{end}\n" for chrom, start, end in intervals)


def place_of(bed: str) -> str:
    """The file for intervals of ct.toml, below the project, named by its content."""
    return f"work/regions/{digest_text(bed)[:16]}.bed"


def write_bed(path: Path, bed: str) -> None:
    """See to it that the intervals are a file."""
    if not path.is_file() or path.stat().st_size != len(bed.encode()):
        write_whole(path, bed.encode())


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a BED file that are intervals, with their numbers."""
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip() and not line.startswith(("#", "track", "browser")):
                yield number, line.rstrip("\r\n")


def read_bed(path: Path) -> list[Interval]:
    """The intervals of a BED file in its order. InputError names the first line that is none."""
    found: list[Interval] = []
    for number, line in lines_of(path):
        said = _interval(line)
        if isinstance(said, str):
            raise InputError(f"{path} line {number}: {said}")
        found.append(said)
    return found


def bed_problems(path: Path, index: Path | None) -> Iterator[str]:
    """The problems of a BED file; with a genome's index (.fai), also intervals outside the genome."""
    lengths = _lengths(index) if index is not None and index.is_file() else None
    found: list[str] = []
    intervals = 0
    try:
        for number, line in lines_of(path):
            said = _interval(line)
            intervals += not isinstance(said, str)
            wrong = said if isinstance(said, str) else _off(said, lengths)
            if wrong is not None:
                found.append(f"line {number}: {wrong}")
    except (OSError, UnicodeDecodeError, EOFError) as error:
        found.append(f"cannot be read as a BED file: {error}")
    if not intervals and not found:
        found.append("has no intervals")
    yield from found[:NAMED]
    if len(found) > NAMED:
        yield f"… and {len(found) - NAMED} more"


def _interval(line: str) -> Interval | str:
    cells = line.split("\t") if "\t" in line else line.split()
    if len(cells) < 3 or not (cells[1].isascii() and cells[1].isdigit() and cells[2].isascii() and cells[2].isdigit()):
        return f"{line!r:.60}: chromosome, start and end are expected"
    start, end = int(cells[1]), int(cells[2])
    if end <= start:
        return f"{line!r:.60}: the end is not behind the start"
    return cells[0], start, end


def _off(one: Interval, lengths: Mapping[str, int] | None) -> str | None:
    chrom, _, end = one
    if lengths is None:
        return None
    if chrom not in lengths:
        return f"{chrom} is no sequence of the genome; it has {', '.join(list(lengths)[:3])}, …"
    return f"{chrom} has {lengths[chrom]} bases, and {end} lies behind them" if end > lengths[chrom] else None


def _lengths(index: Path) -> dict[str, int]:
    rows = (line.split("\t") for line in index.read_text().splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def version_on(key: str, version: str, digest: str) -> str:
    """The version of a region that lies on this version of a reference."""
    return f"on {key} {version} {digest}"


def lies_on(version: str) -> tuple[str, str] | None:
    """The reference that a region's version names, and that one's data version."""
    found = _VERSION.fullmatch(version)
    return (found["key"], f"{found['version']} {found['digest']}") if found else None


def read_intervals(said: Any) -> tuple[list[Interval], list[str]]:
    """`intervals` of ct.toml, a text or a list of texts, with their problems."""
    texts = said if isinstance(said, list) else [said]
    found: list[Interval] = []
    wrong: list[str] = []
    for text in texts:
        if not isinstance(text, str):
            wrong.append(f'intervals {text!r:.60}: a text is expected, as in "chr17:1-100000"')
            continue
        try:
            found.append(parse_interval(text))
        except ValueError as error:
            wrong.append(f"intervals {text!r:.60}: {error}")
    return found, wrong or ([] if found else ["intervals is empty"])
