"""A sheet of results that were made elsewhere: a row a node, with a column for each output's file."""

import difflib
from collections.abc import Iterator
from pathlib import Path

from ctcore.errors import SheetError
from ctcore.execution.adopt import AdoptedFiles
from ctcore.sheet.options import Options
from ctcore.sheet.rows import Rows, read_table
from ctcore.step import Step

PARTITION = "partition"
CHECKSUM = "checksum"


def read_adopted(step: Step, path: Path, options: Options) -> list[AdoptedFiles]:
    """The files of each row. Columns: `partition` or the level's ID, a column an output, and `OUTPUT_checksum`.

    A relative path begins at the sheet's folder. SheetError with every problem of the sheet's form.
    """
    table = read_table(path, options)
    columns, problems = _columns(step, table, options)
    problems = [*table.problems, *problems]
    found = list[AdoptedFiles]()
    for line, cells in table.rows if not problems else ():
        said = {name: cell for name, cell in zip(columns, cells, strict=False) if name is not None and cell}
        if PARTITION not in said:
            problems.append(f"row {line}: no {PARTITION}")
            continue
        outputs = {name: path.parent / said[name] for name in step.outputs if name in said}
        checksums = {name: said[key] for name in step.outputs if (key := f"{name}_{CHECKSUM}") in said}
        found.append(AdoptedFiles(said[PARTITION], outputs, checksums, f"row {line}: "))
    if not found and not problems:
        problems.append("row 2: no result; one row a node is expected below the header")
    if problems:
        raise SheetError(str(path), problems)
    return found


def _columns(step: Step, table: Rows, options: Options) -> tuple[list[str | None], list[str]]:
    """What each column means (None: passed over), and what is wrong with that."""
    known = {PARTITION: PARTITION, step.level: PARTITION, f"{step.level}_id": PARTITION}
    known |= {name: name for output in step.outputs for name in (output, f"{output}_{CHECKSUM}")}
    found: list[str | None] = []
    problems: list[str] = []
    for written in table.header:
        name = options.name_of(written)
        meant = None if name is None else known.get(name) or known.get(name.lower())
        if name is not None and meant is None:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            problems.append(f"row 1: column {name!r} is unknown; {hint}")
        elif meant is not None and meant in found:
            problems.append(f"row 1: two columns mean {meant}; keep one of them")
        found.append(meant)
    problems += list(_missing(step, found))
    return found, problems


def _missing(step: Step, found: list[str | None]) -> Iterator[str]:
    for name in (PARTITION, *step.outputs):
        if name not in found:
            yield f"row 1: no column {name}"
