"""Steps on Slurm: many one-second calls beside the same commands as a bare job array, on a cluster of its own."""

import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from compileall import compile_dir
from dataclasses import replace
from pathlib import Path
from statistics import median

from sqlalchemy import select

from benchmarks.backfill import _launch
from benchmarks.measure import Measured, Row, Target, apart, expect, timed
from ctcore.catalog.tables import slurm_batch
from ctcore.cohorts.partitions import partitions
from ctcore.execution.materialize import StepRun
from ctcore.execution.runners import VARIABLE, runner_of
from ctcore.project import Project
from tests.helpers.kit import TOML, assay, make_project
from tests.helpers.slurm import ROOT, Slurm, running
from tools.slurm.cluster import missing
from tools.slurm.processes import FOREIGN
from tools.slurm.settings import Shape

PARTITIONS, QUICK = 500, 12
SMALL, LARGE = (100, 1_000), (4, 8)
LATENCIES, QUICK_LATENCIES = 20, 2
CPUS = 8  # so many sleep at once: more of them, and the start of Python on two cores would be what is measured
SHAPE = Shape(nodes=2, cpus=CPUS // 2, max_array=2001)
SLOWER, CPU_MS, SEEN_S, GROWTH = 1.15, 20.0, 2.0, 1.2
BARE = "bare sbatch --array of the same commands"
COMMAND = "sleep {seconds}; wc -c < {reads} > {out}"
STEP = "counted"
STEPS = f'''\
"""One shell command."""

import subprocess
from dataclasses import dataclass

from ctcore.step import Call, step


@dataclass(frozen=True)
class Waiting:
    """How long it takes."""

    seconds: int = 1


@step(level="assay", files=["reads"], params=Waiting, outputs={{"n": "n.txt", "ended": "ended.txt"}})
def {STEP}(call: Call) -> None:
    """Wait, and count."""
    command = "{COMMAND}; date +%s.%N > {{ended}}"
    places = {{"reads": call.file("reads"), "out": call.out("n"), "ended": call.out("ended")}}
    subprocess.run(command.format(seconds=call.params.seconds, **places), shell=True, check=True)
'''
PROFILE = """
[slurm.bench]
memory_gb = 0.1
time = 10
"""


def measure(folder: Path, quick: bool) -> Iterator[Row]:
    if why := missing():
        print(f"  passed over: {why}", file=sys.stderr)
        return
    with running(SHAPE) as slurm:
        _lead_to(slurm)
        number, seconds = (QUICK, 0) if quick else (PARTITIONS, 1)
        yield from _makespan(slurm, folder, number, seconds)
        yield from _memory(folder, LARGE if quick else SMALL)
        yield _latency(folder / "latency", QUICK_LATENCIES if quick else LATENCIES)


def _lead_to(slurm: Slurm) -> None:
    """This process and those below it speak to this cluster, and its jobs find this package."""
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    compile_dir(ROOT / "ctcore", quiet=1)  # as pip leaves it; not every shell lets Python do it
    os.environ |= {"SLURM_CONF": slurm.environment["SLURM_CONF"], VARIABLE: "bench", "PYTHONPATH": str(ROOT)}


def _makespan(slurm: Slurm, folder: Path, number: int, seconds: int) -> Iterator[Row]:
    bare = timed(lambda: _bare(folder / "bare", number, seconds), times=1)
    for what, root, work in (("no Dagster", "alone", _making), ("one Dagster run", "run", _run)):
        project = _project(folder / root, number, seconds)
        found = apart(_counted, work, project.root)
        expect(what, found.value, {"made": number})
        size = f"{number} × {seconds} s, {CPUS} at once"
        yield Row(f"Slurm, {what}: makespan", size, found, BARE, bare, Target(SLOWER, "×"))
        each = Target(CPU_MS, "ms each", found.cpu / number * 1000)
        yield _alone(f"Slurm, {what}: CPU", size, found, "its sbatch, squeue, sacct too", each)
        counted = Target(1, "arrays", _arrays(slurm, project))
        yield _alone(f"Slurm, {what}: submissions", size, found, "as accounting counts them", counted)


def _alone(what: str, size: str, found: Measured, said: str, target: Target) -> Row:
    return Row(what, size, found, said, None, target)


def _memory(folder: Path, sizes: tuple[int, int]) -> Iterator[Row]:
    few, many = (apart(_counted, _run, _project(folder / f"memory{n}", n, 0).root) for n in sizes)
    grown = (many.peak_mib or 0) / (few.peak_mib or 1)
    size = f"{sizes[1]} × 0 s"
    yield Row("Slurm, one Dagster run: memory", size, many, f"{sizes[0]} × 0 s", few, Target(GROWTH, "× peak", grown))


def _latency(root: Path, number: int) -> Row:
    """From the end of a step's command, on the node's clock, to its outcome in the run: publishing is part of it."""
    project = _project(root, number, 0)
    runner = runner_of(project)

    def one(key: str) -> float:
        (outcome,) = StepRun(project, project.steps[STEP], [key], runner=runner).outcomes()
        seen = time.time()
        expect("latency", outcome.state, "made")
        return seen - _ended(project, key)

    keys = iter(partitions(project, "assay"))
    late: list[float] = []
    whole = timed(lambda: late.append(one(next(keys))), times=number)
    found = replace(whole, seconds=median(late))
    what = f"highest of {number}: {max(late):.2f} s; sbatch to outcome: {whole.seconds:.2f} s"
    return _alone("Slurm: a job's end is seen", "1 × 0 s", found, what, Target(SEEN_S, "s", max(late)))


def _ended(project: Project, key: str) -> float:
    (path,) = (project.store.root / STEP / key).glob("*/ended.txt")
    return float(path.read_text())


def _project(root: Path, number: int, seconds: int) -> Project:
    toml = TOML.replace("[run]", f"[run]\npartitions_per_run = {number}") + PROFILE
    toml += f"\n[params.{STEP}]\nseconds = {seconds}\n"
    return make_project(root, [assay(f"P{n}", f"S{n}", f"A{n}", sex="F") for n in range(number)], STEPS, toml)


def _counted(work: Callable[[Project], Counter[str]], root: Path) -> Measured:
    """In a process of its own. CPU with that of the commands it ran."""
    project = Project.find(root)
    before = _children_s()
    found = timed(lambda: dict(work(project)), times=1)
    return replace(found, cpu=found.cpu + _children_s() - before)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _making(project: Project) -> Counter[str]:
    keys = partitions(project, "assay")
    making = StepRun(project, project.steps[STEP], keys, stale_only=True, runner=runner_of(project))
    return Counter(one.state for one in making.outcomes())


def _run(project: Project) -> Counter[str]:
    launch = _launch(project)
    launch.run()
    return launch.counts


def _bare(folder: Path, number: int, seconds: int) -> None:
    """As one would write it by hand; the files say when all is done."""
    for name in ("reads", "out"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for at in range(number):
        (folder / "reads" / f"{at}.txt").write_text(f"reads of A{at}\n")
    me = "$SLURM_ARRAY_TASK_ID"
    command = COMMAND.format(seconds=seconds, reads=f"reads/{me}.txt", out=f"out/{me}.part")
    options = [f"--chdir={folder}", "--output=%a.log", f"--array=0-{number - 1}", "--mem=102", "--time=10"]
    wrap = f"--wrap={command}; mv out/{me}.part out/{me}.txt"
    subprocess.run(["sbatch", *options, wrap], check=True, capture_output=True)
    while len(list((folder / "out").glob("*.txt"))) < number:
        time.sleep(0.1)


def _arrays(slurm: Slurm, project: Project) -> int:
    """How many arrays accounting has of this project's batches."""
    with project.catalog.read() as connection:
        listed = ",".join(connection.execute(select(slurm_batch.c.id)).scalars())
    lines = slurm.command("sacct", "-X", "-n", "-P", f"--name={listed}", "--format=JobID").splitlines()
    return len({line.partition("_")[0] for line in lines})
