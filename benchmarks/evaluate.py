"""The verdict on every node of a cohort, when all is fresh and when one reference makes all of it stale."""

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sqlalchemy import update

from benchmarks.cohort import made_project
from benchmarks.measure import Measured, Row, Target, expect, growth, timed
from ctcore.catalog.tables import reference
from ctcore.inputs.current import forget
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate

NODES = (1_000, 10_000, 100_000)
QUICK = (60, 300)
SECONDS = 5.0  # at the largest
EXPONENT = 1.1
BASELINE = "sqlite3: fetch all edges"
_EDGES = "SELECT a.asset, a.partition, e.* FROM artifact a JOIN edge e ON e.materialization = a.materialization"


def measure(folder: Path, quick: bool) -> Iterator[Row]:
    found: dict[str, list[tuple[int, Measured]]] = {"all fresh": [], "one reference changed": []}
    for nodes in QUICK if quick else NODES:
        project, total = made_project(folder / str(nodes), assays=nodes * 2 // 3)
        baseline = timed(lambda project=project: _fetch(project.root / "catalog.db"))
        for state, stale in (("all fresh", 0), ("one reference changed", total)):
            if stale:
                _change_reference(project)
            measured = timed(evaluate, before=lambda project=project: _anew(project))
            expect(f"stale nodes of {total}, {state}", len(measured.value.stale()), stale)
            found[state].append((total, replace(measured, value=None)))
            yield _row(state, found[state], baseline, last=nodes == NODES[-1])
    for state, points in found.items():
        yield _growth(state, points)


def _row(state: str, points: list[tuple[int, Measured]], baseline: Measured, last: bool) -> Row:
    total, measured = points[-1]
    target = Target(SECONDS, "s") if last else None
    what = f"evaluate, {state}"
    return Row(what, f"{total} nodes", measured, BASELINE, baseline, target)


def _growth(state: str, points: list[tuple[int, Measured]]) -> Row:
    """Between the two largest, where what every evaluation costs hides nothing any more."""
    smaller, larger = [(total, one.seconds) for total, one in points[-2:]]
    target = Target(EXPONENT, "exponent", growth(smaller, larger))
    return Row(f"growth, {state}", f"{smaller[0]} → {larger[0]} nodes", points[-1][1], target=target)


def _anew(project: Project) -> Project:
    """As a process that has asked nothing yet, on a project in which nobody has."""
    forget()
    shutil.rmtree(project.work / "mirror", ignore_errors=True)
    return project


def _change_reference(project: Project) -> None:
    with project.catalog.write() as writer:
        writer.execute(update(reference).values(version="2"))
        writer.event("reference", "reference/genome", {"version": "2"})


def _fetch(catalog: Path) -> int:
    connection = sqlite3.connect(catalog)
    try:
        return len(connection.execute(_EDGES).fetchall())
    finally:
        connection.close()
