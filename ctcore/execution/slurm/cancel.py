"""How a waiting run ends, here or on Slurm: by a signal, by Dagster's termination, or after the first failed call."""

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any, Literal, NoReturn

from ctcore.execution.call import StepResult
from ctcore.util.progress import Reader

RunEnd = Literal["go", "slow", "fast", "leave"]
Fail = Literal["slow", "fast"]
RunRequest = Literal["going", "cancelling", "cancelled", "shell"]
"""Who runs it: a Dagster run that goes on, is being cancelled, or was said to be; or a person at a shell."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
WITHDRAWING = "withdrawing queued jobs; running ones may finish, and are kept (again: cancel them)"
CANCELLING = "cancelling all jobs (again: leave at once)"
FAILED = "a call failed (--fail fast): withdrawing queued jobs; running ones may finish, and are kept"
_failing: ContextVar[Fail] = ContextVar("ct_failing", default="slow")


@contextmanager
def on_failure(how: Fail) -> Iterator[None]:
    """Inside this block, a failed call of a run changes nothing for the others (`slow`), or stops waiting ones from
    starting (`fast`)."""
    token = _failing.set(how)
    try:
        yield
    finally:
        _failing.reset(token)


def left_jobs_text(jobs: int, where: str) -> str:
    return f"{jobs} jobs {where}; the next run of these nodes waits for them"


class Stop:
    """`slow`: withdraw waiting jobs, keep running ones. `fast`: cancel all. `leave`: touch nothing and go."""

    def __init__(self, asked: Callable[[], RunRequest] = lambda: "shell") -> None:
        self._asked = asked
        self._heard: list[int] = []
        self._fail = _failing.get()
        self.has_failed = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals are noted inside of this block, instead of tearing it apart in the middle of a change."""
        # Only the main thread may set handlers, and only it runs them (docs.python.org, signal, signals and threads).
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
    def signal_count(self) -> int:
        return len(self._heard)

    def failed(self) -> None:
        """A call has failed for good."""
        self.has_failed = self._fail == "fast"

    def requested_end(self, fail: Fail) -> RunEnd:
        """What is wanted now. A SIGTERM without a cancellation is a restart: the jobs are left alone."""
        if not self._heard:
            return "slow" if self.has_failed else "go"
        asked = self._asked()
        if asked == "cancelled":
            return "fast"
        if asked == "going" or (asked == "shell" and signal.SIGTERM in self._heard):
            return "leave"
        wishes: tuple[RunEnd, ...] = ("slow", "fast", "leave")
        return wishes[min(self.signal_count - 1 + (fail == "fast"), 2)]

    def end_without_waiting(self, fail: Fail) -> RunEnd:
        """What is wanted if the run was ended from outside and cannot go on waiting."""
        asked = self._asked()
        torn: dict[RunRequest, RunEnd] = {"cancelling": fail, "cancelled": "fast"}
        return torn.get(asked, "leave")

    def end(self) -> NoReturn:
        """Be interrupted now, as one would have been without listening."""
        if self._heard:
            signal.raise_signal(signal.Signals(self._heard[0]))
        raise KeyboardInterrupt

    def _hear(self, number: int, _frame: FrameType | None) -> Any:
        self._heard.append(number)


class WaitLoop(ABC):
    """Work under way, here or in Slurm, that is looked at again and again until it is over, or its run is ended."""

    stop: Stop
    note: Reader
    fail: Fail = "slow"
    every_s: float
    """How long to wait where a look finds nothing."""

    def __init__(self) -> None:
        self.wish: RunEnd = "go"

    @abstractmethod
    def look(self) -> list[StepResult]:
        """Start what may start, and return what ended since the last look."""

    @abstractmethod
    def apply_end(self, wish: RunEnd) -> None:
        """Do what is wanted from now on. It is called once for each wish."""

    @property
    @abstractmethod
    def is_over(self) -> bool: ...

    @property
    def rest_s(self) -> float:
        """How long to wait where a look found something, so that the next one finds more: each is recorded as one."""
        return 0.0

    def results(self) -> Iterator[list[StepResult]]:
        """Yield results as they come. Raises KeyboardInterrupt, or the received signal, when the wish is fulfilled."""
        whole, wait_s = False, 0.0
        try:
            while not self.is_over and self.wish != "leave":
                with self.stop.listening():
                    self._set_end(self.stop.requested_end(self.fail))
                    time.sleep(wait_s)
                    found = self.look()
                wait_s = self.rest_s if found else self.every_s
                if found:
                    yield found
            whole = True
        finally:
            if not whole:
                self._set_end(self.stop.end_without_waiting(self.fail))
        if self.stop.signal_count:
            self.stop.end()

    def _set_end(self, wish: RunEnd) -> None:
        if wish == self.wish:
            return
        self.wish = wish
        if wish == "slow":
            self.note(FAILED if self.stop.has_failed and not self.stop.signal_count else WITHDRAWING)
        elif wish == "fast":
            self.note(CANCELLING)
        self.apply_end(wish)
