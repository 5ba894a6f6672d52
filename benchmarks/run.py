"""`ct run` as a shell sees it, with short steps: processor time of all its processes, beside 200 starts of Python."""

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.measure import Measured, Row, Target, apart, expect
from ctcore.util.processes import adopt_orphans
from tests.helpers.kit import assay, make_project
from tests.helpers.shell import environment, quiet_dagster

STARTS = 200
BASELINE = f"{STARTS} × python -c pass"
STEP = """
@step(level="assay", {takes}, outputs={{"n": "n.txt"}})
def s{at:02}(call: Call) -> None:
    call.out("n").write_text("{at} " + call.entity)

"""
# assays, steps, in starts of Python
SIZES = {
    "ct run, nothing to do": (200, 1, 0.07),
    "ct run, a small project": (1, 2, None),
    "ct run, steps in a row": (1, 46, 0.4),
    "ct run, nodes of one step": (200, 1, 0.35),
    "ct run, many nodes of one step": (1000, 1, 1.1),
}
QUICK = 2


def measure(folder: Path, quick: bool) -> Iterator[Row]:
    adopt_orphans()
    for number, (what, (many, deep, limit)) in enumerate(SIZES.items()):
        if quick and number:
            return
        assays, steps = (min(many, QUICK), min(deep, QUICK)) if quick else (many, deep)
        root = folder / f"{number}"
        apart(_make, root, assays, steps)
        if what.endswith("nothing to do"):
            expect(what, _ended(_ct(root))[1], f"{assays * steps} made, 0 reused, 0 not made")
        bare = _measured(lambda: [_ended([sys.executable, "-c", "pass"]) for _ in range(QUICK if quick else STARTS)])
        found = _measured(lambda at=root: _ended(_ct(at))[1])
        done = "everything is fresh: nothing to do" if number == 0 else f"{assays * steps} made, 0 reused, 0 not made"
        expect(what, found.value, done)
        ratio = found.cpu / bare.cpu
        target = Target(limit, "×", ratio) if limit else None
        yield Row(what, f"{assays} assays, {steps} steps", found, BASELINE, bare, target)
        shutil.rmtree(root, ignore_errors=True)


def _make(root: Path, assays: int, steps: int) -> None:
    takes = ('files=["reads"]', *(f'inputs={{"up": "s{at:02}"}}' for at in range(steps - 1)))
    steps_text = "".join(STEP.format(at=at, takes=one) for at, one in enumerate(takes))
    text = f"from ctcore.step import Call, step\n{steps_text}"
    make_project(root, [assay("P1", "S1", f"A{at:03}", sex="F") for at in range(assays)], text)
    quiet_dagster(root)
    subprocess.run(_ct(root, "register", "sheet.csv"), cwd=root, env=environment(), capture_output=True, check=True)


def _ct(root: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "ctcore.cli", "-C", str(root), *(words or ("run",))]


def _ended(command: Sequence[str]) -> tuple[int, str]:
    """The exit code and the last line on stderr, when all processes below have ended."""
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        return done.returncode, (done.stderr.splitlines() or [""])[-1]


def _measured(work: Callable[[], object]) -> Measured:
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    value = work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(time.perf_counter() - began, cpu, after.ru_maxrss / 1024, value)
