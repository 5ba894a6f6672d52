"""What a call costs, in things that can be counted: the same on every machine, also on a busy one.

Between them they see work wherever it is done: in the database, on the way, in Python's calls, in arrays.
"""

import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event

from ctcore.project import Project

STRIDE = 100
READS = ("SELECT", "WITH", "VALUES")


@dataclass
class Costs:
    """Statements that read, rows that came of them, SQLite's own instructions (to the nearest hundreds), calls of
    Python functions and of those in C, and the most bytes at once, arrays included."""

    statements: int = 0
    rows: int = 0
    instructions: int = 0
    calls: int = 0
    peak: int = 0


def costs(project: Project, function: Callable[[], Any]) -> Costs:
    """Call it twice, once for counting calls and once for the memory; `function` must do the same both times."""
    found = Costs()
    _watch(project, found)
    sys.setprofile(lambda _frame, what, _given: _called(found, what))
    try:
        function()
    finally:
        sys.setprofile(None)
        _unwatch(project)
    tracemalloc.start()
    try:
        function()
        found.peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return found


def _called(found: Costs, what: str) -> None:
    if what in ("call", "c_call"):
        found.calls += 1


def _watch(project: Project, found: Costs) -> None:
    """Whatever goes over connections of this project's engine, by whichever way."""

    def tick() -> int:
        found.instructions += STRIDE
        return 0

    def told(statement: str) -> None:
        found.statements += statement.lstrip(" (\n").upper().startswith(READS)

    def row(_cursor: Any, values: Any) -> Any:
        found.rows += 1
        return values

    def connected(connection: Any, _record: Any) -> None:
        connection.set_progress_handler(tick, STRIDE)
        connection.set_trace_callback(told)
        connection.row_factory = row

    project.catalog.engine.dispose()
    event.listen(project.catalog.engine, "connect", connected)
    _watching[id(project.catalog.engine)] = connected


def _unwatch(project: Project) -> None:
    engine = project.catalog.engine
    event.remove(engine, "connect", _watching.pop(id(engine)))
    engine.dispose()


_watching: dict[int, Any] = {}
