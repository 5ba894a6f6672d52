"""Progress: bars on a terminal, a line a step elsewhere. Written to stderr, so that output can be piped."""

import sys
import time
from types import TracebackType
from typing import Any, Self

from ctcore.terminal.render import is_terminal


class Bars:
    """One bar a task; `start` it with its total, `advance` it, `say` something above the bars."""

    def __init__(self) -> None:
        self._rich: Any = None
        self._tasks: dict[str, Any] = {}
        self._done: dict[str, tuple[int, int, float]] = {}

    def __enter__(self) -> Self:
        if is_terminal(sys.stderr):
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("{task.description:<20}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            self._rich = Progress(*columns, console=Console(stderr=True))
            self._rich.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich is not None:
            self._rich.__exit__(kind, error, trace)

    def start(self, name: str, total: int) -> None:
        """A bar of so many, or so many more on the bar that there is."""
        if not total:
            return
        done, before, since = self._done.get(name, (0, 0, time.monotonic()))
        if self._rich is not None and name in self._tasks:
            self._rich.update(self._tasks[name], total=before + total)
        elif self._rich is not None:
            self._tasks[name] = self._rich.add_task(name, total=total)
        self._done[name] = (done, before + total, since)

    def advance(self, name: str, by: int = 1) -> None:
        done, total, since = self._done.get(name, (0, 0, 0.0))
        self._done[name] = (done + by, total, since)
        if self._rich is not None:
            self._rich.advance(self._tasks[name], by)
        elif done + by == total:
            print(f"{name:<20} {total}/{total}  {time.monotonic() - since:.1f} s", file=sys.stderr, flush=True)

    def end(self, name: str) -> None:
        """Nothing more comes of it. Without anything done, there was nothing to do."""
        if self._rich is not None and name in self._tasks and not self._done[name][0]:
            self._rich.remove_task(self._tasks.pop(name))

    def say(self, text: str, style: str | None = "red") -> None:
        if self._rich is not None:
            self._rich.console.print(text, style=style, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)
