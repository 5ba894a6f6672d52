"""Tables as the steps write and read them: tab-separated, a header line, numbers always in the same shape."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

Value = str | int | float | None


def write_tsv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Value]]) -> None:
    """One line a row; None is a blank; reals have four decimals."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([shown(value) for value in row] for row in rows)


def write_row(path: Path, row: Mapping[str, Value]) -> None:
    """A table of one row."""
    write_tsv(path, list(row), [list(row.values())])


def read_tsv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def shown(value: Value) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def fraction(part: float, whole: float) -> float:
    """part / whole; 0 of nothing."""
    return part / whole if whole else 0.0
