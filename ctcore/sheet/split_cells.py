"""Rows with several files in a cell, as one row a file."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ctcore.model.schema import Levels
from ctcore.sheet.columns import LANE, read_columns
from ctcore.sheet.options import Options
from ctcore.sheet.rows import Rows


def split_cells(table: Rows, options: Options, levels: Levels) -> Rows:
    """The table where a row has one file in each column of files; what else it says stands in each of its rows.

    Lanes, IDs of assays and checksums are separated as the files are, or are those of all.
    """
    if options.split is None:
        return table
    columns, _ = read_columns(table.header, [False] * len(table.header), levels, options, table.lenient)
    files = [position for position, _ in columns.files.values()]
    beside = [position for position, *_ in columns.checksums]
    beside += [at for at, name in enumerate(table.header) if (options.name_of(name) or "").lower() == LANE]
    beside += [columns.ids["assay"]] if "assay" in columns.ids else []
    rows, problems, split = list[tuple[int, list[str]]](), list[str](), 0
    for line, cells in table.rows:
        parts = {at: _parts(cells[at], options.split) for at in (*files, *beside) if at < len(cells)}
        many = max((len(parts[at]) for at in files if at in parts), default=1)
        odd = [
            at for at, some in parts.items() if len(some) not in ((many,) if at in files and cells[at] else (1, many))
        ]
        if odd:
            counts = ", ".join(
                f"{len(parts[at])} in {table.header[at]}" for at in parts if len(parts[at]) > 1 or at in odd
            )
            problems.append(f"row {line}: {counts}; as many of each are expected, separated by {options.split!r}")
        elif many > 1:
            split += 1
            rows += _one_each(line, cells, parts, many)
            continue
        rows.append((line, cells))
    if not split and not problems:
        return table
    note = f"{split} row{'s' * (split != 1)} with several files in a cell: each file is taken as a row of its own"
    notes = (*table.notes, *([note] if split else ()))
    return replace(table, rows=rows, problems=[*table.problems, *problems], notes=notes)


def _parts(cell: str, separator: str) -> list[str]:
    return [part.strip() for part in cell.split(separator)] if separator.strip() else cell.split() or [""]


def _one_each(
    line: int, cells: Sequence[str], parts: dict[int, list[str]], many: int
) -> Iterator[tuple[int, list[str]]]:
    for number in range(many):
        mine = list(cells)
        for at, some in parts.items():
            mine[at] = some[number] if len(some) == many else some[0]
        yield line, mine
