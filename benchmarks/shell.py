"""Whole commands, as a shell sees them, on a large cohort in which all is fresh."""

import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Row, Target, apart, run

ASSAYS = 40_000
QUICK = 100
WHY_S = 0.5
BASELINE = "python -c pass"


def measure(folder: Path, quick: bool) -> Iterator[Row]:
    assays = QUICK if quick else ASSAYS
    apart(_make, folder, assays)  # because a process starts with the peak memory of the one that started it
    size = f"{assays} assays"
    bare = run([sys.executable, "-c", "pass"])
    yield Row("import sqlalchemy", "", run([sys.executable, "-c", "import sqlalchemy"]), BASELINE, bare)
    for command, target in (
        (["--help"], None),
        (["why", f"counted/A{assays // 2}"], Target(WHY_S, "s")),
        (["why", "merged/S7"], Target(WHY_S, "s")),
        (["why", "joined/all"], None),
        (["status"], None),
        (["status", "--all"], None),
    ):
        found = run([sys.executable, "-m", "ctcore.cli", "-C", str(folder / "project"), *command])
        yield Row(f"ct {' '.join(command)}", size, found, BASELINE, bare, target)


def _make(folder: Path, assays: int) -> None:
    from benchmarks.cohort import made_project

    made_project(folder / "project", assays)
