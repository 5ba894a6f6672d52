"""Made-up cohorts: a sheet with raw files to register, and a catalog filled as if all its steps had been made."""

import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import insert, literal, select

from ctcore.catalog.engine import Writer
from ctcore.catalog.tables import artifact, edge, entity, file, materialization, member, output, recipe
from ctcore.cohorts.partitions import partitions
from ctcore.inputs.key import PreparedCall, prepare
from ctcore.project import Project
from ctcore.step import Step
from ctcore.store.digest import canonical_json, digest_value
from ctcore.util.clock import now
from tests.helpers.kit import STEPS, make_project

SHEET_TOML = """\
[project]
id = "cohort"

[levels.patient.columns]
sex = { enum = ["F", "M"] }
age = "integer"

[levels.specimen.columns]
site = {}

[levels.assay]
files = ["fastq_1", "fastq_2"]

[levels.assay.columns]
library = {}
"""
SHEET_COLUMNS = ("patient_id", "sex", "age", "specimen_id", "site", "assay_id", "library", "fastq_1", "fastq_2")
RECORD = b"\x1f\x8b a small gzip file of reads "
SETTLED_S = 2.5  # a file that was written a moment ago is read more carefully, and its digest is not remembered


def sheet_project(root: Path, assays: int) -> tuple[Project, Path]:
    """An empty project and a sheet: two assays a specimen, two specimens a patient, two FASTQ files an assay."""
    (root / "steps").mkdir(parents=True)
    (root / "ct.toml").write_text(SHEET_TOML)
    reads = root / "reads"
    reads.mkdir()
    path = root / "sheet.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(SHEET_COLUMNS)
        for at in range(assays):
            names = [f"A{at}_{end}.fastq.gz" for end in (1, 2)]
            for name in names:
                (reads / name).write_bytes(RECORD + name.encode())
            patient, specimen = at // 4, at // 2
            row = (f"P{patient}", "FM"[patient % 2], 20 + patient % 60, f"S{specimen}", "blood", f"A{at}", "L1")
            writer.writerow((*row, *(f"reads/{name}" for name in names)))
    project = Project.find(root)
    project.store.ensure()
    time.sleep(SETTLED_S)
    return project, path


def made_project(root: Path, assays: int, steps: str = STEPS) -> tuple[Project, int]:
    """The toy project of the tests with so many assays, two a specimen, and a ledger in which all is made.

    Returns the project and how many nodes its steps have. Rows go in by sets; no step runs and the files of
    the artifacts are not there: verdicts go by an earlier look.
    """
    project = make_project(root, [{"patient_id": "P0", "specimen_id": "S0", "assay_id": "A0", "sex": "F"}], steps)
    with project.catalog.write() as writer:
        _add_entities(writer, assays)
        writer.event("fill", "sheet", {"assays": assays})
    seen_lately(root)
    return project, sum(_make_all(project, step) for step in project.steps)


def seen_lately(root: Path) -> None:
    """What was made has no files here: `status` goes by an earlier look. `looks` measures what one costs."""
    place = root / "ct.toml"
    place.write_text(place.read_text().replace("[run]\n", f"[run]\nlook_again_s = {24 * 3600}\n"))
    (root / "work").mkdir(exist_ok=True)
    (root / "work" / "looked.json").write_text(json.dumps({"at": time.time(), "files": 0}))


def _add_entities(writer: Writer, assays: int) -> None:
    """Patients, specimens and assays beside the first ones, which were registered from a sheet."""
    specimens = -(-assays // 2)
    seq = {row.id: row.seq for row in writer.execute(select(entity.c.id, entity.c.seq))}
    first = max(seq.values())
    rows = []

    def add(level: str, name: str, parent: str | None, attributes: dict[str, str]) -> None:
        if name in seq:
            return
        seq[name] = first + len(rows) + 1
        text = canonical_json(attributes).decode()
        up = seq[parent] if parent else None
        rows.append({"seq": seq[name], "level": level, "id": name, "parent": up, "attributes": text})

    for at in range(-(-specimens // 2)):
        add("patient", f"P{at}", None, {"sex": "FM"[at % 2]})
    for at in range(specimens):
        add("specimen", f"S{at}", f"P{at // 2}", {})
    for at in range(assays):
        add("assay", f"A{at}", f"S{at // 2}", {})
    writer.insert(entity, rows)
    writer.insert(file, [_file(row["seq"], row["id"]) for row in rows if row["level"] == "assay"])


def _file(number: int, name: str) -> dict[str, object]:
    place = {"entity": number, "role": "reads", "path": f"reads/{name}.txt"}
    return {**place, "digest": digest_value("ct.bench", name), "size": 9, "mtime_ns": 1, "inode": number}


def _make_all(project: Project, step: Step) -> int:
    """The ledger's rows for every node of a step, from the calls that would be made for them."""
    ready = prepare(project, step, partitions(project, step.level)).ready
    with project.catalog.write() as writer:
        first = len(writer.execute(select(materialization.c.id)).all()) + 1
        number = len(writer.execute(select(recipe.c.id)).all()) + 1
        used = project.recipes[step.name]
        row = {"id": number, "step": step.name, "code": used.code, "digest": used.digest}
        sides = {"parameters": dict(used.parameters), "environment": dict(used.environment)}
        writer.insert(recipe, [{**row, **{name: canonical_json(value).decode() for name, value in sides.items()}}])
        calls = dict(enumerate(ready.values(), first))
        writer.event("fill", step.name, {"artifacts": len(calls)})
        writer.insert(materialization, [_materialization(at, call, number) for at, call in calls.items()])
        writer.insert(output, [_output(at, call, project) for at, call in calls.items()])
        writer.insert(edge, [{"materialization": at, **used._asdict()} for at, c in calls.items() for used in c.edges])
        writer.insert(member, [row for at, call in calls.items() for row in _members(at, call)])
        same = ("asset", "partition", "recipe", "data_version", "key")
        made = materialization.c
        writer.execute(
            insert(artifact).from_select(
                (*same, "materialization", "checked_at"),
                select(*(made[name] for name in same), made.id, literal(now())).where(made.asset == step.name),
            )
        )
    return len(ready)


def _materialization(number: int, call: PreparedCall, recipe_id: int) -> dict[str, object]:
    return {
        "id": number,
        "asset": call.node[0],
        "partition": call.node[1],
        "key": call.key,
        "recipe": recipe_id,
        "data_version": digest_value("ct.bench", list(call.node)),
        "folder": f"{call.node[0]}/{call.node[1]}/{call.key[:16]}",
        "size": 9,
        "facts": "{}",
        "reason": "missing: never made",
        "run_id": None,
        "started_at": now(),
        "seconds": 0.0,
        "reported": True,
    }


def _output(number: int, call: PreparedCall, project: Project) -> dict[str, object]:
    name = next(iter(project.steps[call.node[0]].outputs.values())).file
    digest = digest_value("ct.bench", list(call.node))
    return {"materialization": number, "file": name, "digest": digest, "size": 9, "mtime_ns": 1, "inode": number}


def _members(number: int, call: PreparedCall) -> Iterator[dict[str, object]]:
    for level, who in call.members:
        yield {"materialization": number, "level": level, "entity": who, "role": "member"}
