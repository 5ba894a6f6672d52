"""Pipelines of unusual shapes: 10,000 steps in a row, and layers of diamonds, which must cost no more than their size.

The steps are made in memory, all of one function; the project's own file of steps is not looked at.
"""

import math
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from benchmarks import scans
from benchmarks.measure import Measured, Row, Target, apart, expect, growth, timed
from benchmarks.nation import fill
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from ctcore.step import Output, Resources, Step
from ctcore.steps.graph import Recipe, StepGraph
from tests.helpers.kit import STEPS, assay, make_project

ROW = (1_000, 10_000)
DIAMONDS = ((100, 100), (1_000, 100))  # assays, layers
GRAPHS = ((100, 100), (1_000, 100))  # steps a layer, layers
QUICK_ROW = (10, 40)
QUICK_DIAMONDS = ((5, 3), (10, 3))
QUICK_GRAPHS = ((5, 10), (20, 10))
Beside = tuple[Measured, str, Measured | None]
EXPONENT = 1.15
SECONDS = 120  # after that it is given up: where it is not linear, it does not end


def measure(folder: Path, quick: bool) -> Iterator[Row]:
    shapes: dict[str, list[tuple[str, int, Callable[..., Any], tuple[Any, ...]]]] = {
        "graph of steps in a row": [(f"{n} steps", n, _graph, (1, n)) for n in (QUICK_ROW if quick else ROW)],
        "graph of layers of diamonds": [
            (f"{wide} wide, {deep} deep", wide * deep, _graph, (wide, deep))
            for wide, deep in (QUICK_GRAPHS if quick else GRAPHS)
        ],
        "evaluate, steps in a row": [
            (f"{n} steps", n, _evaluated, (folder / f"row{n}", 1, 1, n)) for n in (QUICK_ROW if quick else ROW)
        ],
        "evaluate, layers of diamonds": [
            (f"{many} assays, {deep} layers of 2", many * deep * 2, _evaluated, (folder / f"net{many}", many, 2, deep))
            for many, deep in (QUICK_DIAMONDS if quick else DIAMONDS)
        ],
    }
    for what, some in shapes.items():
        yield from _shape(what, some)


def _shape(what: str, some: Sequence[tuple[str, int, Callable[..., Any], tuple[Any, ...]]]) -> Iterator[Row]:
    points: list[tuple[str, int, Measured]] = []
    for size, number, function, given in some:
        mine, baseline, theirs = apart(_in_time, function, *given)
        points.append((size, number, mine))
        yield Row(what, size, mine, baseline, theirs)
    (first, less, before), (last, more, after) = points
    ended = math.isfinite(after.seconds)
    found = growth((less, before.seconds), (more, after.seconds)) if ended else math.inf
    yield Row(f"growth: {what}", f"{first} → {last}", after, target=Target(EXPONENT, "exponent", found))


def layers(like: Step, wide: int, deep: int) -> list[Step]:
    """Each step takes the one above it and that one's neighbour: diamonds as soon as a layer has two."""
    like = replace(like, sources=None)  # what its text asks for was declared by the one that it is made from
    found = [replace(like, name=f"s0_{at}", inputs={}) for at in range(wide)]
    for layer in range(1, deep):
        for at in range(wide):
            above = sorted({f"s{layer - 1}_{at}", f"s{layer - 1}_{(at + 1) % wide}"})
            inputs = {f"of_{number}": name for number, name in enumerate(above)}
            found.append(replace(like, name=f"s{layer}_{at}", inputs=inputs, files=(), references=()))
    return found


def _in_time(function: Callable[..., Beside], *given: Any) -> Beside:
    """Infinitely many seconds where it does not end, or the stack does."""
    try:
        with _at_most(SECONDS):
            return function(*given)
    except (TimeoutError, RecursionError) as error:
        print(f"  given up: {type(error).__name__} {error}"[:200], file=sys.stderr)
        return Measured(math.inf, math.inf, timed(int).peak_mib), "", None


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def ended(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    signal.signal(signal.SIGALRM, ended)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def _graph(wide: int, deep: int) -> Beside:
    """Check the declarations, put them in order, and ask for the depth and all ancestors of the last one."""
    like = Step(
        "like",
        "assay",
        print,
        Path(__file__),
        {},
        (),
        (),
        (),
        None,
        None,
        {"out": Output("out.txt")},
        Resources(),
        (),
        "",
        "",
    )
    given = layers(like, wide, deep)

    def asked() -> tuple[int, int]:
        graph = StepGraph(given)
        last = given[-1].name
        return graph.depth(last), len(graph.upstream([last]))

    found = timed(asked)
    # an ancestor more to the side in each layer above, until the layer is full
    expect("depth and ancestors", found.value, (deep, sum(min(wide, at + 1) for at in range(deep))))
    bare = {step.name: list(step.inputs.values()) for step in given}
    return found, "graphlib: put in order", timed(lambda: len(tuple(TopologicalSorter(bare).static_order())))


def _evaluated(root: Path, assays: int, wide: int, deep: int) -> Beside:
    project = make_project(root, [assay("P0", "S0", "A0", sex="F")], STEPS)
    given = layers(project.steps["counted"], wide, deep)
    _replace_steps(project, given)
    made = fill(project, assays)
    found = timed(lambda: evaluate(_replace_steps(Project.find(root), given)), times=1)
    counts = [found.value.count(step.name) for step in given]
    fresh = sum(count.get("fresh", 0) for count in counts)
    expect("fresh nodes", fresh, made.nodes)
    mine = Measured(found.seconds, found.cpu, found.peak_mib)
    return mine, *scans.fastest(scans.of_the_file(root / "catalog.db"))


def _replace_steps(project: Project, given: Sequence[Step]) -> Project:
    vars(project)["steps"] = StepGraph(given)
    vars(project)["recipes"] = {step.name: Recipe(step.name, "0" * 64, {}, {}) for step in given}
    return project
