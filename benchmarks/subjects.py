"""What is measured, one file a subject; each has `measure(folder, quick)`, which yields its rows."""

import importlib
import tempfile
from pathlib import Path

from benchmarks.measure import Row

SUBJECTS = (
    "register",
    "governance",
    "digest",
    "evaluate",
    "looks",
    "verdicts",
    "chains",
    "rivals",
    "shell",
    "run",
    "backfill",
    "tick",
    "record",
    "adopt",
    "pages",
    "watching",
    "slurm",
)


def measure(name: str, quick: bool) -> list[Row]:
    """The rows of one subject, measured in a temporary folder (TMPDIR says where)."""
    subject = importlib.import_module(f"benchmarks.{name}")
    with tempfile.TemporaryDirectory(prefix=f"ct-{name}-") as folder:
        return list(subject.measure(Path(folder).resolve(), quick))
