"""A small real project for tests: a sheet, raw files, three toy steps, one a level. Real files, real catalog."""

import csv
import json
import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sqlalchemy import Connection, func, select, update

from ctcore.catalog.tables import entity, file, output
from ctcore.cohorts.partitions import partitions
from ctcore.execution.call import StepCall, StepResult, run_calls
from ctcore.execution.materialize import Outcome, Runner, StepRun
from ctcore.governance.qc import QcEntry
from ctcore.governance.qc import add as add_qc
from ctcore.intake.raw_files import look
from ctcore.intake.register import register
from ctcore.intake.sheet_diff import SheetChanges
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate

TOML = """\
[project]
id = "toy"

[levels.patient.columns]
sex = { enum = ["F", "M"] }
age = "integer"

[levels.specimen.columns]
site = {}

[levels.assay]
files = ["reads"]

[levels.assay.columns]
library = {}

[references.genome]
path = "genome.txt"
version = "1"

[cohorts.all]

[steps]
folders = ["steps"]

[run]
workers = 2
"""

STEPS = '''\
"""Toy steps: count, merge, join."""

from dataclasses import dataclass

from ctcore.step import Call, step


@dataclass(frozen=True)
class Counting:
    """How to count."""

    factor: int = 1


@step(level="assay", files=["reads"], references=["genome"], params=Counting, outputs={"n": "n.txt"})
def counted(call: Call) -> dict[str, int]:
    """Count the letters of the reads."""
    n = len(call.file("reads").read_text().strip()) * call.params.factor
    call.out("n").write_text(f"{n} {call.reference('genome').read_text()}")
    return {"letters": n}


@step(level="specimen", inputs={"counts": "counted"}, columns=["patient.sex"], outputs={"n": "n.txt"})
def merged(call: Call) -> None:
    """All counts of a specimen, with the patient's sex."""
    lines = [source["n"].read_text().strip() for source in call.many("counts")]
    call.out("n").write_text(f"{call.column('patient.sex')} {' '.join(lines)}\\n")


@step(level="cohort", inputs={"specimens": "merged"}, outputs={"table": "table.tsv"})
def joined(call: Call) -> None:
    """One line a specimen."""
    rows = [f"{source.entity}\\t{source['n'].read_text()}" for source in call.many("specimens")]
    call.out("table").write_text("".join(rows))
'''

MORE = """

@step(level="assay", inputs={"n": "counted"}, outputs={"n": "n.txt"})
def doubled(call: Call) -> None:
    call.out("n").write_text(call.one("n")["n"].read_text() * 2)


@step(level="assay", inputs={"n": "doubled", "m": "merged"}, outputs={"n": "n.txt"})
def compared(call: Call) -> None:
    call.out("n").write_text("x")


@step(level="assay", inputs={"n": "doubled"}, outputs={"n": "n.txt"})
def tripled(call: Call) -> None:
    call.out("n").write_text(call.one("n")["n"].read_text() * 3)
"""
"""Further steps: two below `counted`, and one that takes a step of another level too."""

COLUMNS = ("patient_id", "sex", "age", "specimen_id", "site", "assay_id", "library", "reads")


def assay(patient: str, specimen: str, assay: str, **more: str) -> dict[str, str]:
    """A row of the sheet."""
    return {"patient_id": patient, "specimen_id": specimen, "assay_id": assay, **more}


ROWS = (
    assay("P1", "S1", "A1", sex="F", age="40"),
    assay("P1", "S1", "A2", sex="F", age="40"),
    assay("P2", "S2", "A3", sex="M", age="50"),
)


def make_project(root: Path, rows: Iterable[Mapping[str, str]] = ROWS, steps: str = STEPS, toml: str = TOML) -> Project:
    """A project with these assays registered; each has a file of reads with its own ID as content."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "ct.toml").write_text(toml)
    (root / "genome.txt").write_text("ACGT\n")
    (root / "steps").mkdir(exist_ok=True)
    (root / "steps" / "toy.py").write_text(textwrap.dedent(steps))
    project = Project.find(root)
    project.store.ensure()
    add(project, rows)
    return project


def add(project: Project, rows: Iterable[Mapping[str, str]]) -> SheetChanges:
    """Register these rows, with files for those that name none."""
    path = write_sheet(project.root, rows)
    changes = register(project, path)
    look(project)
    return changes


def fail(project: Project, *ids: str) -> None:
    """QC fails for these entities, by ID: they may not be used any more."""
    chosen = select(entity.c.level, entity.c.id).where(entity.c.id.in_(ids))
    with project.catalog.read() as connection:
        sayings = [QcEntry(row.level, row.id, "qc_fail", "the control failed") for row in connection.execute(chosen)]
    add_qc(project, sayings)


def count_entities(connection: Connection) -> dict[str, int]:
    """How many of each level are registered."""
    rows = connection.execute(select(entity.c.level, func.count()).group_by(entity.c.level))
    return {row[0]: row[1] for row in rows}


def write_sheet(root: Path, rows: Iterable[Mapping[str, str]]) -> Path:
    listed = [dict(row) for row in rows]
    (root / "reads").mkdir(exist_ok=True)
    for row in listed:
        row.setdefault("reads", f"reads/{row['assay_id']}.txt")
        if row["reads"] and not (root / row["reads"]).exists():
            (root / row["reads"]).write_text(f"reads of {row['assay_id']}\n")
    path = root / "sheet.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(listed)
    return path


def again(project: Project) -> Project:
    """The project as a new process would open it."""
    return Project.find(project.root)


def make(project: Project, step: str, *keys: str, runner: Runner | None = None) -> list[Outcome]:
    """Make nodes of one step; without a runner, with real worker processes."""
    chosen = keys or tuple(partitions(project, project.steps[step].level))
    return list(StepRun(project, project.steps[step], chosen, runner=runner).outcomes())


def make_all(project: Project, inline: bool = True) -> dict[str, str]:
    """Make everything that is stale, step after step: node → what became of it."""
    found: dict[str, str] = {}
    for step in project.steps:
        keys = partitions(project, step.level)
        runner = Inline(project) if inline else None
        for one in StepRun(project, step, keys, stale_only=True, runner=runner).outcomes():
            found["/".join(one.node)] = one.state
    return found


def reasons(project: Project) -> dict[str, list[str]]:
    """Every node that is not fresh → the kinds of its reasons."""
    listed = evaluate(project).stale()
    return {"/".join(verdict.node): [reason.kind for reason in verdict.reasons] for verdict in listed}


def change(path: Path) -> bytes:
    """Other bytes of the same size; the mtime is put back, as `cp -p` in place or a restored backup does."""
    before, content = path.stat(), path.read_bytes()
    path.chmod(0o644)
    with path.open("r+b") as stream:
        stream.write(bytes([content[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return content


def rot(project: Project, path: Path) -> bytes:
    """The same below the file system: the disk gives other bytes, and not even the ctime tells."""
    content = change(path)
    ctime = path.stat().st_ctime_ns
    name = project.recorded(path)
    with project.catalog.write() as writer:
        if name.startswith("store/"):
            writer.execute(update(output).where(output.c.size == len(content)).values(ctime_ns=ctime))
        else:
            writer.execute(update(file).where(file.c.path == name).values(ctime_ns=ctime))
    return content


class Inline:
    """Runs calls in this process: for tests of what is decided, where a process a call would only cost time."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def run(self, calls: Sequence[StepCall]) -> Iterator[list[StepResult]]:
        for call in calls:
            path = call.write(self.project.work)
            run_calls(str(self.project.work), str(self.project.store.root), [str(path)])
            result = self.project.work / "results" / path.name
            yield [StepResult(**json.loads(result.read_bytes()))]
