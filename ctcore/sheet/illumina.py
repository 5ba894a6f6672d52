"""Illumina's SampleSheet.csv, the file of each sequencing run: its sections, and the table of its samples.

Version 1 has the samples in `[Data]`, version 2 in `[BCLConvert_Data]`
(https://knowledge.illumina.com/software/general/software-general-reference_material-list/000002204).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ctcore.sheet.header_line import LINE

_SECTION = re.compile(r'"?\[([A-Za-z0-9_ -]+)\]"?[\s,;]*')
_TABLES = ("bclconvert_data", "data")
COLUMNS = {"Sample_ID": "specimen_id"}
"""Illumina's columns that are IDs here; `Lane` has our name."""


@dataclass(frozen=True)
class SampleTable:
    """Where the table of samples stands: from its header's line (`line`, counted from 1) to the next section."""

    start: int
    end: int
    line: int
    section: str
    others: tuple[str, ...]


def find_samples(text: str) -> SampleTable | str | None:
    """The table of samples of a sample sheet; None where the text is none, and what is wrong where it has no table."""
    first = next((one for one in LINE.finditer(text) if one[0].strip(" \t,;\r\n")), None)
    if first is None or not _SECTION.fullmatch(first[0]):
        return None
    sections = list(_sections(text))
    names = [name for name, *_ in sections]
    folded = [name.lower() for name in names]
    for wanted in (one for one in _TABLES if one in folded):
        name, start, line = sections[folded.index(wanted)]
        if folded.count(wanted) > 1:
            return f"it is an Illumina sample sheet with several sections [{name}]; keep one of them"
        ends = [one.start() for one in LINE.finditer(text, start) if _SECTION.fullmatch(one[0])]
        return SampleTable(start, min(ends, default=len(text)), line, name, tuple(one for one in names if one != name))
    listed = ", ".join(f"[{name}]" for name in names)
    return f"it is an Illumina sample sheet without a section [Data] or [BCLConvert_Data]; it has {listed}"


def _sections(text: str) -> Iterator[tuple[str, int, int]]:
    """Each section's name, where its text begins, and the number of that line."""
    for number, line in enumerate(LINE.finditer(text), 1):
        if said := _SECTION.fullmatch(line[0]):
            yield said[1].strip(), line.end(), number + 1
