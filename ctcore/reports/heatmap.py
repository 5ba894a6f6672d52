"""`ct heatmap`: entities by steps as a picture, a panel a level; of many entities, a line is the worst of some."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctcore.errors import Usage
from ctcore.model.levels import Level
from ctcore.query.readable import Gate, level_names
from ctcore.reports.palette import LOOKS, ORDER, WORST
from ctcore.staleness.verdicts import Verdicts

LINES = 1_000  # more are not seen on a screen
NAMED = 60  # entities whose IDs are all written; of more, those that are not fresh
TALL = 50  # a panel of few entities is drawn as if it had so many: its cells are lines, not walls
ROOM = 70  # IDs beneath each other that do not overlap
LETTER = 0.075  # inches of a letter of an ID or a step's name, at 8 points
FORMATS = (".png", ".svg", ".pdf")
Codes = NDArray[Any]


def heatmap(gate: Gate, verdicts: Verdicts, path: Path) -> None:
    """Write the picture; png, svg or pdf by the file's name."""
    if path.suffix.lower() not in FORMATS:
        raise Usage(f"a picture is {', '.join(FORMATS)}, not {path.suffix or 'a file without an ending'}")
    panels: list[tuple[Level, Codes, int]] = [(level, *grid(gate, verdicts, level)) for level in ORDER]
    drawn = [panel for panel in panels if panel[1].size]
    if not drawn:
        raise Usage("there is nothing to draw: no step has nodes yet; `ct register SHEET` first")
    figure = _figure(gate, drawn)
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)


def grid(gate: Gate, verdicts: Verdicts, level: Level) -> tuple[Codes, int]:
    """(lines, steps) places in WORST, and how many entities a line stands for: it shows the worst of them."""
    columns = [verdicts.states(step.name) for step in gate.project.steps if step.level == level]
    if not columns:
        return np.zeros((0, 0), np.int8), 1
    places = {state: at for at, state in enumerate(WORST)}
    codes = np.array([[places[state] for state in column] for column in columns], np.int8).T
    shown = codes[gate.shows(level)[: len(codes)]]
    every = max(1, -(-len(shown) // LINES))
    starts = np.arange(0, len(shown), every)
    return (np.minimum.reduceat(shown, starts, axis=0) if len(shown) else shown), every


def _figure(gate: Gate, panels: Sequence[tuple[Level, Codes, int]]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle

    most = max(len(codes) for _, codes, _ in panels)
    wide = [1.1 + 0.45 * codes.shape[1] for _, codes, _ in panels]
    ids = [_ids(gate, *panel) for panel in panels]
    beside = [max(1.2, 0.4 + LETTER * max(map(len, some.values()), default=0)) for some in ids]
    above = LETTER * max(len(step.name) for step in gate.project.steps)
    size = (max(7.0, sum(wide) + sum(beside)), 2.4 + max(1.0, above) + min(9.0, 0.16 * most))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=wide)[0]
    colours = ListedColormap([LOOKS[state][0] for state in WORST])
    for axis, (level, codes, every), some in zip(axes, panels, ids, strict=True):
        axis.imshow(codes, cmap=colours, vmin=-0.5, vmax=len(WORST) - 0.5, aspect="auto", interpolation="nearest")
        axis.set_ylim(max(len(codes), min(most, TALL)) - 0.5, -0.5)
        axis.spines[:].set_visible(False)
        high, across = codes.shape
        axis.add_patch(Rectangle((-0.5, -0.5), across, high, fill=False, edgecolor="#6b7280", clip_on=False))
        _labels(axis, gate, level, every, some)
    patches = [Patch(facecolor=LOOKS[state][0], edgecolor="#6b7280", label=state) for state in LOOKS]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False, fontsize=9)
    figure.suptitle(_plain(gate.project.settings.name), fontsize=12)
    return figure


def _ids(gate: Gate, level: Level, codes: Codes, every: int) -> dict[int, str]:
    """The lines whose IDs are written, with these."""
    first = next(step.name for step in gate.project.steps if step.level == level)
    names = [name for name, on in zip(gate.snapshot.names(first), gate.shows(level), strict=True) if on]
    return {at: names[at] for at in labelled_lines(codes)} if every == 1 else {}


def _labels(axis: Any, gate: Gate, level: Level, every: int, ids: dict[int, str]) -> None:
    steps = [step.name for step in gate.project.steps if step.level == level]
    entities = int(gate.shows(level).sum())
    axis.xaxis.tick_top()
    axis.set_xticks(range(len(steps)), [_plain(name) for name in steps], rotation=60, ha="left", fontsize=8)
    axis.set_xticks(np.arange(-0.5, len(steps)), minor=True)
    axis.grid(which="minor", axis="x", color="#ffffff", linewidth=1.5)
    axis.tick_params(which="both", length=0)
    title = level if entities == 1 else level_names(level)
    axis.set_title(f"{entities:,} {title}" + (f"\na line: the worst of {every}" if every > 1 else ""), fontsize=10)
    axis.set_yticks(list(ids), list(map(_plain, ids.values())), fontsize=8)
    if entities <= NAMED:
        axis.set_yticks(np.arange(-0.5, entities), minor=True)
        axis.grid(which="minor", axis="y", color="#ffffff", linewidth=1)


def labelled_lines(codes: Codes) -> list[int]:
    """The rows whose IDs are written: all of a few; of many, those that need a person, as far as there is room."""
    if len(codes) <= NAMED:
        return list(range(len(codes)))
    apart, chosen = len(codes) / ROOM, [-len(codes)]
    for at in np.flatnonzero((codes < WORST.index("missing")).any(axis=1)).tolist():
        if at - chosen[-1] >= apart:
            chosen.append(at)
    return chosen[1:]


def _plain(text: str) -> str:
    """Escape dollar signs: matplotlib reads text between two of them as a formula."""
    return text.replace("$", r"\$")
