"""What a command that asks for verdicts does first: a look at every raw file, reference and published file."""

import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import bindparam, select, update

from benchmarks.measure import Row, Target, apart, expect, run, timed
from benchmarks.nation import fill
from ctcore.catalog.tables import materialization, output
from ctcore.integrity.look import look_around
from ctcore.project import Project
from ctcore.store.digest import Signature
from ctcore.store.manifest import OWN
from tests.helpers.kit import assay, make_project

ASSAYS, QUICK = 100_000, 300
TIMES = 6.0  # of what the stats alone cost
STEPS = '''"""One step."""

from ctcore.step import Call, step


@step(level="assay", files=["reads"], references=["genome"], outputs={"out": "out.txt"})
def counted(call: Call) -> None:
    call.out("out").write_text("")
'''


def measure(folder: Path, quick: bool) -> Iterator[Row]:
    assays = QUICK if quick else ASSAYS
    apart(_write, folder / "p", assays)
    project = Project.find(folder / "p")
    size = f"{assays} raw, {assays} published files"
    places = _places(project)
    plain = timed(lambda: [os.stat(place) for place in places])
    found = timed(lambda: look_around(project))
    expect("what a look finds", (found.value.is_clear, found.value.files), (True, 2 * assays))
    baseline = "os.stat of each of them, of sidecars and manifests"
    yield Row("look, nothing changed", size, found, baseline, plain, Target(TIMES, "×"))
    read = timed(lambda: _fetched(project.root / "catalog.db"))
    yield Row("look, nothing changed", size, found, "sqlite3: fetch their rows", read)
    whole = run([sys.executable, "-m", "ctcore.cli", "-C", str(project.root), "stale"])
    yield Row("ct stale", size, whole, baseline, plain)


def _write(root: Path, assays: int) -> None:
    """Real files of 9 bytes, and beside those of the store what it writes itself, without content."""
    project = make_project(root, [assay("P0", "S0", "A0", sex="F")], STEPS)
    fill(project, assays, raw=True)
    os.utime(root / "genome.txt", (1, 1))
    with project.catalog.read() as connection:
        columns = (output.c.materialization, output.c.file, materialization.c.folder)
        joined = select(*columns).join(materialization, materialization.c.id == output.c.materialization)
        rows = connection.execute(joined).all()
    seen = []
    for number, name, place in rows:
        folder = project.store.root / place
        folder.mkdir(parents=True)
        for own in OWN:
            (folder / own).touch()
        (folder / name).write_bytes(b"published")
        seen.append({"b_made": number, "b_file": name, **Signature.of(folder / name)._asdict()})
    with project.catalog.write() as writer:
        mine = (output.c.materialization == bindparam("b_made")) & (output.c.file == bindparam("b_file"))
        writer.execute(update(output).where(mine), seen)
    time.sleep(0.1)
    look_around(project, most=None)


def _places(project: Project) -> list[str]:
    store = [str(path) for path in project.store.root.glob("*/*/*/*")]
    return [*(str(path) for path in (project.root / "reads").glob("**/*.txt")), *store]


def _fetched(catalog: Path) -> int:
    connection = sqlite3.connect(catalog)
    try:
        raw = connection.execute("SELECT path, size, mtime_ns, inode, ctime_ns FROM file").fetchall()
        made = connection.execute("SELECT file, size, mtime_ns, inode, ctime_ns FROM output").fetchall()
        return len(raw) + len(made)
    finally:
        connection.close()
