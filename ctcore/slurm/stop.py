"""④ How a run that waits for jobs, here or in Slurm, is ended: by signals, heard only while it waits, by what Dagster
says of it, or by the first call that failed."""

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any, Literal, NoReturn

from ctcore.execute import StepResult
from ctcore.progress import Reader

Wish = Literal["go", "slow", "fast", "leave"]
Fail = Literal["slow", "fast"]
Asked = Literal["going", "cancelling", "cancelled", "shell"]
"""Who runs it: a Dagster run that goes on, is being cancelled, or was said to be; or a person at a shell."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
WITHDRAWING = "withdrawing queued jobs; running ones may finish, and are kept (again: cancel them)"
CANCELLING = "cancelling all jobs (again: leave at once)"
FAILED = "a call failed (--fail fast): withdrawing queued jobs; running ones may finish, and are kept"
_failing: ContextVar[Fail] = ContextVar("ct_failing", default="slow")


@contextmanager
def failing(how: Fail) -> Iterator[None]:
    """What a failed call of a run inside of this block does to the others: nothing (`slow`), or none of those that wait
    is started any more (`fast`)."""
    token = _failing.set(how)
    try:
        yield
    finally:
        _failing.reset(token)


def left_alone(jobs: int, where: str) -> str:
    return f"{jobs} jobs {where}; the next run of these nodes waits for them"


class Stop:
    """`slow`: withdraw what waits, keep what runs. `fast`: cancel all. `leave`: touch nothing, and be gone."""

    def __init__(self, asked: Callable[[], Asked] = lambda: "shell") -> None:
        self._asked = asked
        self._heard: list[int] = []
        self._fail = _failing.get()
        self.has_failed = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals are noted inside of this block, instead of tearing it apart in the middle of a change."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            signal.signal(number, self._hear)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def heard(self) -> int:
        return len(self._heard)

    def failed(self) -> None:
        """A call has failed for good."""
        self.has_failed = self._fail == "fast"

    def wish(self, fail: Fail) -> Wish:
        """What is wanted now. A SIGTERM that nobody's cancelling explains is a restart: the jobs are left alone."""
        if not self._heard:
            return "slow" if self.has_failed else "go"
        asked = self._asked()
        if asked == "cancelled":
            return "fast"
        if asked == "going" or (asked == "shell" and signal.SIGTERM in self._heard):
            return "leave"
        wishes: tuple[Wish, ...] = ("slow", "fast", "leave")
        return wishes[min(self.heard - 1 + (fail == "fast"), 2)]

    def torn(self, fail: Fail) -> Wish:
        """What is wanted where the run was ended from outside, and cannot go on waiting."""
        asked = self._asked()
        torn: dict[Asked, Wish] = {"cancelling": fail, "cancelled": "fast"}
        return torn.get(asked, "leave")

    def end(self) -> NoReturn:
        """Be interrupted now, as one would have been without listening."""
        if self._heard:
            signal.raise_signal(signal.Signals(self._heard[0]))
        raise KeyboardInterrupt

    def _hear(self, number: int, _frame: FrameType | None) -> Any:
        self._heard.append(number)


class Rounds(ABC):
    """Work under way, here or in Slurm, that is looked at again and again until it is over, or its run is ended."""

    stop: Stop
    note: Reader
    fail: Fail = "slow"
    every_s: float
    """How long to wait where a look finds nothing."""

    def __init__(self) -> None:
        self.wish: Wish = "go"

    @abstractmethod
    def look(self) -> list[StepResult]:
        """Start what may be started, and give what has ended since the last look."""

    @abstractmethod
    def obey(self, wish: Wish) -> None:
        """Do what is wanted from now on; it is said once."""

    @property
    @abstractmethod
    def is_over(self) -> bool: ...

    def results(self) -> Iterator[list[StepResult]]:
        """Yield results as they come. KeyboardInterrupt, or the signal that was heard, once all is done as wanted."""
        whole = False
        try:
            while not self.is_over and self.wish != "leave":
                with self.stop.listening():
                    self._turn(self.stop.wish(self.fail))
                    found = self.look()
                    if not found:
                        time.sleep(self.every_s)
                if found:
                    yield found
            whole = True
        finally:
            if not whole:
                self._turn(self.stop.torn(self.fail))
        if self.stop.heard:
            self.stop.end()

    def _turn(self, wish: Wish) -> None:
        if wish == self.wish:
            return
        self.wish = wish
        if wish == "slow":
            self.note(FAILED if self.stop.has_failed and not self.stop.heard else WITHDRAWING)
        elif wish == "fast":
            self.note(CANCELLING)
        self.obey(wish)
