"""A small real project whose assays have folders as raw files."""

from pathlib import Path

from ctcore.intake.raw_files import look
from ctcore.intake.register import register
from ctcore.intake.sheet_diff import SheetChanges
from ctcore.project import Project
from tests.helpers import kit

TOML = kit.TOML.replace('files = ["reads"]', 'files = ["reads"]\nfolders = ["pod5"]')
STEPS = """
from ctcore.step import Call, step

@step(level="assay", files=["pod5"], outputs={"n": "n.txt"})
def called(call: Call) -> None:
    folder = call.file("pod5")
    call.out("n").write_text((folder / "a.pod5").read_text() + (folder / "skip" / "b.pod5").read_text())
"""
WRITES = '(call.file("pod5") / "w").write_text("x")\n    folder = call'
OWNERS = {"A1": ("P1", "S1"), "A2": ("P1", "S1"), "A3": ("P2", "S2")}


def tree(root: Path, name: str) -> Path:
    folder = root / "raw" / name
    (folder / "skip").mkdir(parents=True)
    (folder / "a.pod5").write_text(f"signal of {name}\n")
    (folder / "skip" / "b.pod5").write_text(f"more of {name}, skipped\n")
    return folder


def sheet(root: Path, **paths: str) -> Path:
    """A row an assay, each with its folder, or with the path that is given."""
    cells = {name: f"raw/{name}" for name in OWNERS} | paths
    rows = [f"{','.join(OWNERS[name])},{name},{path}" for name, path in cells.items()]
    place = root / "sheet.csv"
    place.write_text("\n".join(["patient_id,specimen_id,assay_id,pod5", *rows]) + "\n")
    return place


def make_project(root: Path, toml: str = TOML) -> Project:
    (root / "steps").mkdir(parents=True)
    (root / "ct.toml").write_text(toml)
    (root / "genome.txt").write_text("ACGT\n")
    (root / "steps" / "toy.py").write_text(STEPS)
    for name in OWNERS:
        tree(root, name)
    found = Project.find(root)
    found.store.ensure()
    return found


def registered(project: Project) -> SheetChanges:
    changes = register(project, sheet(project.root))
    look(project)
    return changes
