"""Recording results one by one from eight processes at once, beside bare INSERTs of the same rows, a commit each."""

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sqlalchemy import Table, func, select

from benchmarks.cohort import made_project
from benchmarks.measure import Measured, Row, Target, apart, expect
from ctcore.catalog.event_log import check_chain
from ctcore.catalog.tables import edge, event, materialization, output, result
from ctcore.execution import ledger
from ctcore.inputs.key import PreparedCall, prepare
from ctcore.intake.results import ResultEntry, analysis_of, record, values_of
from ctcore.project import Project
from ctcore.store.store import PublishedArtifact
from ctcore.util.clock import utc
from tests.helpers.kit import STEPS
from tests.helpers.postgres import NoPostgres, Server, server

ASSAYS = (1_000, 10_000, 40_000)
QUICK = (20,)
RESULTS, FEW = 1_000, 16
WRITERS = 8
RATES = {"SQLite": 200.0, "PostgreSQL": 500.0}
FLAT = 1.15
CALL, ENTERED = "a call's result", "a result entered"
BASELINE = "bare INSERTs of the same rows, a commit each"

ANALYSIS = """
[analyses.pathology]
level = "assay"

[analyses.pathology.columns]
ki67 = { type = "real", unit = "%", range = [0, 100], required = true }
grade = { enum = ["G1", "G2", "G3"] }
cells = "integer"
read_on = "date"
"""
STEP = """

@step(level="assay", inputs={"counts": "counted"}, outputs={"n": "n.txt"})
def measured(call: Call) -> dict[str, object]:
    \"\"\"Never called: its results are written by the benchmark.\"\"\"
    return {}
"""


def measure(folder: Path, quick: bool) -> Iterator[Row]:
    for name in RATES:
        points: dict[str, list[tuple[int, Measured]]] = {}
        for assays in QUICK if quick else ASSAYS:
            with ExitStack() as stack:
                try:
                    url = None if name == "SQLite" else stack.enter_context(_server(stack).fresh())
                except NoPostgres as error:
                    print(f"without PostgreSQL: {error}", file=sys.stderr)
                    return
                rows = apart(_both, folder / f"{name}-{assays}", name, assays, FEW if quick else RESULTS, url)
            for row in rows:
                points.setdefault(row.what, []).append((assays, row.mine))
                yield row
        for what, some in points.items():
            (less, before), (more, after) = some[0], some[-1]
            if less < more:
                slower = after.seconds / before.seconds
                yield Row(f"{what}, flat", f"{less} → {more} assays", after, target=Target(FLAT, "×", slower))


def _server(stack: ExitStack) -> Server:
    return stack.enter_context(server(waits_for_disk=True))


def _both(root: Path, name: str, assays: int, number: int, url: str | None) -> list[Row]:
    """As many results are recorded whatever the size of the cohort."""
    _database(url)
    made_project(root, assays, STEPS + STEP)
    with (root / "ct.toml").open("a") as toml:
        toml.write(ANALYSIS)
    project = Project(root)
    keys = [f"A{at * assays // number}" for at in range(number)]
    published = [
        _publish(project, one) for one in prepare(project, project.steps["measured"], keys, None).ready.values()
    ]
    return [
        _row(project, name, CALL, _record, published, (materialization, output, edge, event), assays, url),
        _row(project, name, ENTERED, _enter, keys, (result, event), assays, url),
    ]


def _row(
    project: Project,
    name: str,
    what: str,
    work: Callable[..., Callable[[], None]],
    listed: Sequence[Any],
    tables: Sequence[Table],
    assays: int,
    url: str | None,
) -> Row:
    before = _count(project, tables[0])
    mine = _at_once(work, [(str(project.root), url, part) for part in _shares(listed)])
    expect(f"{what}: recorded", _count(project, tables[0]) - before, len(listed))
    with project.catalog.read() as connection:
        rows = [dict(row) for row in connection.execute(select(event).order_by(event.c.seq)).mappings()]
    expect("breaks of the chain", check_chain(iter(rows)), [])
    expect("lines of provenance.jsonl", sum(1 for _ in project.catalog.journal.read()), len(rows))
    rate = (len(listed) - WRITERS) / mine.seconds
    said = f"{assays} assays, {WRITERS} writers: {rate:.0f}/s"
    target = Target(1000 / RATES[name], "ms each", 1000 / rate)
    return Row(f"{name}, {what}", said, mine, BASELINE, _bare(project, tables, len(listed), url), target)


def _count(project: Project, table: Table) -> int:
    with project.catalog.read() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar() or 0


def _publish(project: Project, call: PreparedCall) -> PublishedArtifact:
    """An artifact in the store, as a call leaves it."""
    staged = project.store.stage(*call.node, call.key)
    (staged / "n.txt").write_text(f"{call.node[1]}\n")
    sidecar = {
        "format": "ct.artifact.v1",
        "node": list(call.node),
        "level": "assay",
        "key": call.key,
        "recipe": {
            "step": call.recipe.step,
            "code": call.recipe.code,
            "parameters": dict(call.recipe.parameters),
            "environment": dict(call.recipe.environment),
        },
        "inputs": [list(one) for one in call.edges],
        "members": [],
        "outputs": {"n": "n.txt"},
        "facts": {"depth": 31.5, "breadth": 0.97, "reads": 12_345_678, "duplicates": 0.081, "sex": "F"},
        "reason": "missing: never made",
        "run_id": "6f1d",
        "host": "here",
        "started_at": utc(time.time()),
        "seconds": 1.0,
    }
    return project.store.publish(staged, *call.node, call.key, sidecar, ["n.txt"])


def _record(root: str, url: str | None, published: Sequence[PublishedArtifact]) -> Callable[[], None]:
    _database(url)
    project = Project(Path(root))
    ledger.record(project, published[:1])  # what the first one costs is no rate

    def work() -> None:
        for one in published[1:]:
            ledger.record(project, [one])

    return work


def _enter(root: str, url: str | None, keys: Sequence[str]) -> Callable[[], None]:
    _database(url)
    project = Project(Path(root))
    analysis = analysis_of(project, "pathology")

    def enter(who: str) -> None:
        values, _ = values_of(analysis, {"ki67": "31.5", "grade": "G2", "cells": "2000", "read_on": "2026-01-02"})
        record(project, analysis, [ResultEntry(who, values)])

    enter(keys[0])  # what the first one costs is no rate
    return lambda: [enter(who) for who in keys[1:]] and None


def _bare(project: Project, tables: Sequence[Table], number: int, url: str | None) -> Measured:
    """Rows of each table, which a driver alone inserts again."""
    with project.catalog.read() as connection:
        rows = {
            table.name: [tuple(row) for row in connection.execute(table.select().limit(number))] for table in tables
        }
    place = url or str(project.root / f"bare-{len(tables)}.db")
    with closing(_connect(place, url is not None)) as bare:
        cursor = bare.cursor()
        for table in tables:
            listed = ", ".join(f'"{column.name}" text' for column in table.columns)
            cursor.execute(f"DROP TABLE IF EXISTS bare_{table.name}")
            cursor.execute(f"CREATE TABLE bare_{table.name} (number integer PRIMARY KEY, {listed})")
        bare.commit()
    return _at_once(_insert, [(place, url is not None, rows, part) for part in _shares(list(range(number)))])


def _connect(place: str, is_server: bool) -> Any:
    if is_server:
        import psycopg2

        return psycopg2.connect(place)
    connection = sqlite3.connect(place, timeout=60)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def _insert(
    place: str, is_server: bool, rows: dict[str, list[tuple[Any, ...]]], mine: Sequence[int]
) -> Callable[[], None]:
    connection = _connect(place, is_server)
    mark = "%s" if is_server else "?"

    def work() -> None:
        for at in mine:
            cursor = connection.cursor()
            for name, some in rows.items():
                row = some[at % len(some)]
                marks = ", ".join([mark] * (len(row) + 1))
                cursor.execute(f"INSERT INTO bare_{name} VALUES ({marks})", (at, *row))
            connection.commit()

    return work


def _at_once(prepared: Callable[..., Callable[[], None]], parts: Sequence[tuple[Any, ...]]) -> Measured:
    """One process a part; the clock runs from when all are ready to when the last one has ended."""
    server = get_context("forkserver")  # one process imports all that they need, and not each of them
    server.set_forkserver_preload(["benchmarks.record"])
    ready, said = server.Barrier(len(parts) + 1), server.Queue()
    processes = [server.Process(target=_one, args=(prepared, part, ready, said)) for part in parts]
    for process in processes:
        process.start()
    ready.wait(120)
    began = time.perf_counter()
    ended = [said.get(timeout=600) for _ in processes]
    seconds = time.perf_counter() - began
    for process in processes:
        process.join()
        expect("how a writer ended", process.exitcode, 0)
    return Measured(seconds, sum(cpu for cpu, _ in ended), max(peak for _, peak in ended))


def _one(prepared: Callable[..., Callable[[], None]], part: tuple[Any, ...], ready: Any, said: Any) -> None:
    from benchmarks.measure import timed

    work = prepared(*part)
    ready.wait(120)
    found = timed(work, times=1)
    said.put((found.cpu, found.peak_mib))


def _shares(listed: Sequence[Any]) -> list[Sequence[Any]]:
    return [listed[at::WRITERS] for at in range(WRITERS)]


def _database(url: str | None) -> None:
    if url is None:
        os.environ.pop("CT_POSTGRES_URL", None)
    else:
        os.environ["CT_POSTGRES_URL"] = url
