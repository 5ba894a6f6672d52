"""A project in which assays of two patients share one raw file."""

from pathlib import Path

from ctcore.project import Project
from tests.helpers.kit import STEPS, TOML, assay, make_project

SHARED = TOML.replace('files = ["reads"]\n', "\n[levels.assay.files]\nreads = { shared = true }\n")
"""ct.toml of the kit, in which reads may be those of several assays."""
POOL = "reads/pool.txt"
ROWS = (
    assay("P1", "S1", "A1"),
    assay("P1", "S1", "A2", reads=POOL),
    assay("P2", "S2", "A3", reads=POOL),
    assay("P3", "S3", "A4"),
)


def shared_project(root: Path, steps: str = STEPS, toml: str = SHARED) -> Project:
    """A2 of patient P1 and A3 of patient P2 have one file; A1 and A4 have their own."""
    (root / "reads").mkdir(parents=True, exist_ok=True)
    (root / POOL).write_text("reads of a pool\n")
    return make_project(root, ROWS, steps, toml)
