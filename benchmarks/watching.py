"""A call of 100 ms, watched for what it reads beyond what it declares, beside the same call unwatched, in turn."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.measure import Measured, Row, Target, expect, timed
from ctcore.execution import sandbox
from ctcore.execution.call import StepCall, StepResult, execute
from ctcore.execution.strace import find_tracer
from ctcore.project import Project
from tests.helpers.kit import TOML, assay, make, make_project

TIMES, QUICK = 41, 3
STRICT = 5
MOST = 1.03
STEPS = '''"""Work of 100 ms of a processor, with files of its own and a module of the standard library."""

import os
from pathlib import Path

from ctcore.step import Call, step


@step(level="assay", files=["reads"], outputs={"n": "n.txt"})
def counted(call: Call) -> None:
    import csv, difflib
    for n in range(100):
        call.scratch(str(n)).write_text("x")
        call.scratch(str(n)).read_text(), call.file("reads").read_text(), os.environ.get("HOME")
    panel = Path(__file__).parents[1] / "panel.tsv"
    panel = panel.read_text() if panel.exists() else ""
    for _ in range({turns}):
        sum(range(100))
    call.out("n").write_text(panel)
'''


class _Kept:
    """Takes the calls of a making and runs none."""

    calls: Sequence[StepCall] = ()

    def run(self, calls: Sequence[StepCall]) -> Iterator[list[StepResult]]:
        self.calls = calls
        yield from ()


def measure(folder: Path, quick: bool) -> Iterator[Row]:
    turns = _turns()
    project = make_project(folder / "p", [assay("P1", "S1", "A1")], STEPS.replace("{turns}", str(turns)), TOML)
    (project.root / "panel.tsv").write_text("x")
    kept = _Kept()
    make(project, "counted", "A1", runner=kept)
    (call,) = kept.calls
    sys.dont_write_bytecode = True
    found: dict[str, list[Measured]] = {"off": [], "watch": [], "strict": []}
    for _ in range(QUICK if quick else TIMES):
        for how in ("off", "watch"):
            found[how].append(timed(lambda how=how: _run(project, call, how), 1))
    off, watch = (_median(found[how][1:]) for how in ("off", "watch"))
    cost = watch.cpu / off.cpu
    yield Row("a call, watched", f"{off.cpu * 1000:.0f} ms", watch, "unwatched", off, Target(MOST, "×", cost))
    if find_tracer() is not None:
        yield _traced(folder / "t", 1 if quick else STRICT)
    if sandbox.refusal() is None:
        strict = timed(lambda: _run(project, call, "strict"), 1 if quick else STRICT)
        yield Row("a call in the sandbox", f"{off.cpu * 1000:.0f} ms", strict, "unwatched", off)


def _traced(folder: Path, times: int) -> Row:
    """A call that starts one program for 100 ms, at every call and not at all."""
    text = STEPS.replace("sum(range(100))", "pass").replace("{turns}", "1")
    text = text.replace("    panel =", '    import subprocess\n    subprocess.run(["sleep", "0.1"])\n    panel =', 1)
    project = make_project(folder, [assay("P1", "S1", "A1")], text, TOML)
    (project.root / "panel.tsv").write_text("x")
    kept = _Kept()
    make(project, "counted", "A1", runner=kept)
    found = {
        how: timed(lambda call=replace(kept.calls[0], trace=how): _run(project, call, "watch"), times)
        for how in ("off", "always")
    }
    return Row("a program of 100 ms, traced", "", found["always"], "not traced", found["off"])


def _turns() -> int:
    """How often the processor of this machine does it in 100 ms."""
    return round(10_000 * 0.1 / timed(lambda: [sum(range(100)) for _ in range(10_000)], 5).cpu)


def _run(project: Project, call: StepCall, how: str) -> None:
    log = project.work / "log"
    log.touch()
    execute(replace(call, sandbox=how), project.store, log, project.root)
    folder = project.store.folder(*call.node, call.key)
    read = project.store.sidecar(folder)["undeclared"]
    project.store.remove(folder)
    if how != "strict":  # there, it could not be read
        wanted = ["HOME", "panel.tsv"] if how == "watch" else None
        expect(how, read and [one["what"] for one in read], wanted)


def _median(some: Sequence[Measured]) -> Measured:
    return Measured(median(m.seconds for m in some), median(m.cpu for m in some), some[-1].peak_mib)
