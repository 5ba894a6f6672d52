"""Timing, and the one table: what, size, seconds, peak memory, baseline, ratio, target, met."""

import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, Literal

Unit = Literal["×", "s", "ms each", "µs each", "exponent", "arrays", "× peak"]
COLUMNS = ("what", "size", "s", "CPU s", "peak MiB", "baseline", "s", "CPU s", "ratio", "target", "found", "met")


@dataclass(frozen=True)
class Target:
    """At most `limit`. `found` is what is compared with it: the row's ratio (×), its seconds (s), or what is given."""

    limit: float
    unit: Unit
    found: float | None = None


@dataclass(frozen=True)
class Measured:
    """Medians of the seconds on the clock and of the processor, the highest memory, and what the last call returned.

    `cpu` is of this process with all its threads, or of the process that was started; where others keep the machine
    busy, it says more than the clock. `peak_mib` is resident memory, with what the process had before.
    """

    seconds: float
    cpu: float
    peak_mib: float | None
    value: Any = None

    def as_json(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "cpu": self.cpu, "peak_mib": self.peak_mib}


@dataclass(frozen=True)
class Row:
    """One measured thing beside its baseline."""

    what: str
    size: str
    mine: Measured
    baseline: str = ""
    theirs: Measured | None = None
    target: Target | None = None

    @property
    def ratio(self) -> float | None:
        return self.mine.seconds / self.theirs.seconds if self.theirs else None

    @property
    def found(self) -> float | None:
        """What the target is about; None where there is no target, or no baseline to compare with."""
        if self.target is None or self.target.found is not None:
            return self.target and self.target.found
        return self.ratio if self.target.unit == "×" else self.mine.seconds

    @property
    def met(self) -> bool | None:
        return None if self.target is None or self.found is None else self.found <= self.target.limit

    def as_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "size": self.size,
            **self.mine.as_json(),
            "baseline": {"what": self.baseline, **(self.theirs.as_json() if self.theirs else {})},
            "ratio": self.ratio,
            "target": self.target and {"limit": self.target.limit, "unit": self.target.unit},
            "found": self.found,
            "met": self.met,
        }

    def cells(self) -> list[str]:
        mine, theirs, target = self.mine, self.theirs, self.target
        return [
            self.what,
            self.size,
            f"{mine.seconds:.3f}",
            f"{mine.cpu:.3f}",
            "" if mine.peak_mib is None else f"{mine.peak_mib:.0f}",
            self.baseline,
            "" if theirs is None else f"{theirs.seconds:.3f}",
            "" if theirs is None else f"{theirs.cpu:.3f}",
            "" if self.ratio is None else f"{self.ratio:.2f}",
            "" if target is None else _said(target.limit, target.unit, "≤ "),
            "" if target is None or self.found is None else _said(self.found, target.unit),
            {True: "yes", False: "NO", None: ""}[self.met],
        ]


ONCE = "CT_BENCHMARKS_ONCE"  # with --quick nothing is repeated: its figures mean little


def _times(wanted: int) -> int:
    return 1 if ONCE in os.environ else wanted


def timed(function: Callable[..., Any], times: int = 3, before: Callable[[], Any] | None = None) -> Measured:
    """Call it so many times; what `before` returns is prepared each time outside the clock and handed in."""
    seconds, cpu, value = [], [], None
    _forget_peak()
    for _ in range(_times(times)):
        arguments = (before(),) if before else ()
        began, busy = time.perf_counter(), time.process_time()
        value = function(*arguments)
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - busy)
    return Measured(median(seconds), median(cpu), _peak_mib(), value)


def run(command: Sequence[str], times: int = 3) -> Measured:
    """A whole process, from its start to its end; RuntimeError where it does not end well.

    Python may keep what it compiles, as it does where a package is installed.
    """
    found = [_run(command) for _ in range(_times(times))]
    return Measured(
        median(one.seconds for one in found),
        median(one.cpu for one in found),
        max(one.peak_mib or 0 for one in found),
        found[-1].value,
    )


def _run(command: Sequence[str]) -> Measured:
    began = time.perf_counter()
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=kept) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:6])} ended with {process.returncode}: {said[-500:]!r}")
    return Measured(seconds, usage.ru_utime + usage.ru_stime, _mib(usage.ru_maxrss), said)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call it in a process of its own, so that its memory and imports do not count in what is measured here.

    Where its figures mean little anyway, it is forked: half a second of imports less.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("fork" if ONCE in os.environ else "spawn")) as pool:
        return pool.submit(function, *arguments).result()


def growth(smaller: tuple[int, float], larger: tuple[int, float]) -> float:
    """The exponent between two (size, seconds): 1 where twice the size costs twice the time."""
    return math.log(larger[1] / smaller[1]) / math.log(larger[0] / smaller[0])


def expect(what: str, found: object, wanted: object) -> None:
    """A benchmark of a wrong answer is none."""
    if found != wanted:
        raise RuntimeError(f"{what}: {found!r} where {wanted!r} is right; the measurement is worth nothing")


def table(rows: Sequence[Row]) -> str:
    """A Markdown table that is aligned as plain text too."""
    cells = [list(COLUMNS), *(row.cells() for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(COLUMNS))]
    lines = [f"| {' | '.join(map(str.ljust, row, widths))} |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def machine() -> str:
    """Processor, cores and memory, and the Python that measures."""
    model = next((line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ": unknown processor")
    memory = next((line for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "MemTotal: 0 kB")
    gib = int(memory.split()[1]) / (1 << 20)
    python = ".".join(map(str, sys.version_info[:3]))
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[1]
    name = model.partition(":")[2].strip()
    return f"{name}, {cores} cores, {gib:.0f} GiB, Python {python}; load of the last 5 minutes {load:.1f}"


def _said(number: float, unit: str, sign: str = "") -> str:
    text = f"{number:.3g}" if number < 1000 else f"{number:.0f}"
    return f"{sign}{text}{unit}" if unit == "×" else f"{sign}{text} {unit}".replace(" exponent", "")


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # the kernel keeps the peak since the process began: still an upper bound
        return


def _peak_mib() -> float:
    line = next((line for line in _lines("/proc/self/status") if line.startswith("VmHWM")), None)
    if line is None:
        return _mib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return _mib(int(line.split()[1]))


def _mib(kib: float) -> float:
    return kib / 1024


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
