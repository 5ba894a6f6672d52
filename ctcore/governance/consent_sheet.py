"""A sheet of consents: a row a patient; read whole, with every problem at once."""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ctcore.errors import SheetError
from ctcore.governance.consent import ConsentRow, Statement
from ctcore.sheet.rows import read_table

COLUMNS = ("patient", "status", "uses", "date", "until", "form", "reason")
ALIASES: Mapping[str, str] = {"patient_id": "patient", "id": "patient", "use": "uses", "dated": "date"}
REQUIRED = ("patient", "status")


def read_consents(path: Path) -> list[ConsentRow]:
    """The rows of a sheet (csv, tsv, xlsx). Commas or semicolons separate uses. SheetError lists every problem of
    the sheet; `ctcore.governance.consent` checks the statements."""
    table = read_table(path)
    header = [ALIASES.get(name.strip().lower(), name.strip().lower()) for name in table.header]
    problems = [*table.problems, *_header(header)]
    if not table.rows and not problems:
        problems.append("row 2: there are no rows; one patient per row is expected")
    if problems:
        raise SheetError(str(path), problems)
    rows = [(number, dict(zip(header, cells, strict=True))) for number, cells in table.rows]
    return [ConsentRow(number, one["patient"].removeprefix("patient/"), _statement(one)) for number, one in rows]


def _statement(one: Mapping[str, str]) -> Statement:
    uses = tuple(use for use in map(str.strip, re.split("[,;]", one.get("uses", ""))) if use)
    dated = one.get("date") or None
    return Statement(one["status"].lower(), uses, dated, one.get("until"), one.get("form"), one.get("reason", ""))


def _header(header: list[str]) -> Iterable[str]:
    yield from (f"row 1: no column {name}" for name in REQUIRED if name not in header)
    for at, name in enumerate(header):
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, 1)
            yield f"row 1: no column {name!r} is known; " + (
                f"did you mean {near[0]!r}?" if near else f"known: {', '.join(COLUMNS)}"
            )
        elif name in header[:at]:
            yield f"row 1: column {name} is there twice"
