"""The one renderer: a table on a terminal, TSV when piped, JSON on request."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ctcore.project import Project
from ctcore.terminal.safe_text import MOVES, escape_controls

MARK = "*"  # behind a state: it was accepted
_EACH_S = 60  # between lines on how far a reading is, where there is no terminal
FOUND = 3  # exit code of a command that looked and found something

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

_excluded = click.option(
    "--excluded", is_flag=True, help="Include excluded people and results, for a --reason. Goes on record."
)
_reason = click.option("--reason", metavar="TEXT", help="With --excluded: why you need to see it.")

_OF_PEOPLE = {
    *("run", "plan", "stale", "status", "query", "export", "dashboard", "cohort", "batches", "jobs", "logs", "accept"),
    *("show", "why", "path", "trace", "impact", "diff", "heatmap", "qc", "consent", "purge", "record", "verify"),
}

_THOUGH = {"verify": frozenset({"held", "apart"})}  # what leads out of it where a loss holds everybody back, or looks
_THOUGH |= dict.fromkeys(("consent", "qc", "register", "purge"), frozenset({"held"}))
_OF_STEPS = {"run", "plan", "stale", "status"}
NO_STEPS = "no steps yet: write one into a folder of [steps] folders in ct.toml, or name ct_assets/steps there"

_COLOURS = {
    "fresh": "green",
    "missing": "bright_black",
    "stale": "yellow",
    "failed": "red",
    "lost": "red",
    "running": "blue",
    "excluded": "bright_black",
}


def excluded_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--excluded --reason TEXT`, the only way to see excluded people and results."""
    return _excluded(_reason(command))


def open_project(ctx: click.Context) -> Project:
    """Open the command's project. Most commands first report a project without entities or steps."""
    command = ctx.find_root().invoked_subcommand
    root = Project.find(Path(ctx.obj) if ctx.obj else None).root
    project = Project(root, _THOUGH.get(command or "", frozenset()))
    if command in _OF_STEPS and not project.steps.order:
        click.echo(NO_STEPS, err=True)
    if command in _OF_PEOPLE:
        from ctcore.cohorts.partitions import NOBODY, is_empty

        if is_empty(project):
            click.echo(NOBODY, err=True)
    if command in _OF_PEOPLE or command in _THOUGH:
        for said in project.catalog.notes:
            click.echo(said, err=True)
    return project


def is_terminal(stream: Any) -> bool:
    """Whether a person reads it; a stream that the shell closed is None."""
    return stream is not None and stream.isatty()


def echo_json(value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    click.echo(MOVES.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def say(text: object) -> None:
    """Print text that may quote a tool or a person."""
    click.echo(escape_controls(str(text)))


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> None:
    """Print rows: aligned with colours for people, tab-separated for programs."""
    texts = [["" if cell is None else escape_controls(str(cell)) for cell in row] for row in rows]
    if not is_terminal(sys.stdout):
        click.echo("\t".join(columns))
        for row in texts:
            click.echo("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in row))
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    whole = (Column(name, overflow="fold") for name in columns)  # two IDs may differ in their last letter only
    drawn = Table(*whole, title=title, title_justify="left", box=None, pad_edge=False)
    for row in texts:
        drawn.add_row(*(Text(cell, style=_COLOURS.get(cell.removesuffix(MARK), "")) for cell in row))
    Console().print(drawn)


def size(number: float) -> str:
    """Bytes for people: 1234567 → 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


class ByteCounter:
    """Count bytes, as the `on_bytes` of digests. With a total (`of`), it also estimates the time left."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._progress: Any = None
        self._task: Any = None
        self._total = self._read = 0
        self._began = self._told = time.monotonic()

    def __enter__(self) -> Callable[[int], None]:
        if is_terminal(sys.stderr):
            from rich.console import Console
            from rich.progress import (
                DownloadColumn,
                Progress,
                SpinnerColumn,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            columns = (SpinnerColumn(), TextColumn(self.label), DownloadColumn(), TransferSpeedColumn())
            self._progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._progress.__enter__()
            self._task = self._progress.add_task(self.label, total=None)
        return self._count

    def of(self, total: int) -> None:
        """Set the total number of bytes."""
        self._total, self._began = total, time.monotonic()
        if self._progress is not None:
            self._progress.update(self._task, total=total)

    def _count(self, read: int) -> None:
        self._read += read
        if self._progress is not None:
            self._progress.advance(self._task, read)
        elif self._total and time.monotonic() - self._told > _EACH_S:
            self._told = time.monotonic()
            left = (self._total - self._read) * (self._told - self._began) / max(self._read, 1)
            done = f"{size(self._read)} of {size(self._total)}"
            click.echo(f"{self.label}: {done}, {left / 60:.0f} min left", err=True)

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
