"""How a waiting run ends, here or on Slurm: by a signal, by Dagster's termination, or after the first failed call."""

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any, Generic, Literal, NoReturn, Protocol, TypeVar

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

    hears = True
    """Whether it hears signals itself, and its loop waits between two looks."""

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
            # The handlers of before are back: Dagster's, in its runs, raises DagsterExecutionInterruptedError; Python's
            # for Ctrl-C raises KeyboardInterrupt.
            signal.raise_signal(signal.Signals(self._heard[0]))
        raise KeyboardInterrupt

    def _hear(self, number: int, _frame: FrameType | None) -> Any:
        self._heard.append(number)


class FollowingStop(Stop):
    """Of work beside a run, which that run's loop drives: it ends as the run does. It hears no signal, and its loop
    gives back control after each look."""

    hears = False

    def __init__(self, lead: Callable[[], Stop]) -> None:
        super().__init__()
        self._lead = lead

    @contextmanager
    def listening(self) -> Iterator[None]:
        """The run that is followed listens."""
        yield

    @property
    def signal_count(self) -> int:
        return self._lead().signal_count

    def failed(self) -> None:
        super().failed()
        self._lead().failed()

    def requested_end(self, fail: Fail) -> RunEnd:
        return self._lead().requested_end(fail)

    def end_without_waiting(self, fail: Fail) -> RunEnd:
        return self._lead().end_without_waiting(fail)


Found = TypeVar("Found")


class Beside(Protocol):
    """Other work of the same process. All loops together keep to one limit of processes or jobs."""

    def look(self, lead: "WaitLoop[Any]") -> None:
        """Go on with it while `lead` waits; start more of it where nothing of `lead` waits to be started."""

    def others(self, loop: "WaitLoop[Any]") -> int | None:
        """How many processes or jobs the other loops have; None where this one may start nothing now."""

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is under way."""
        ...


class WaitLoop(ABC, Generic[Found]):
    """Work under way, here or in Slurm, that is looked at again and again until it is over, or its run is ended."""

    stop: Stop
    note: Reader
    beside: Beside | None = None
    fail: Fail = "slow"
    every_s: float
    """How long to wait where a look finds nothing."""

    def __init__(self) -> None:
        self.wish: RunEnd = "go"

    @abstractmethod
    def look(self) -> list[Found]:
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

    @property
    @abstractmethod
    def is_waiting(self) -> bool:
        """Whether something is still to be started."""

    @property
    @abstractmethod
    def busy(self) -> int:
        """How many processes or jobs it has now."""

    @property
    @abstractmethod
    def most(self) -> int:
        """How many all loops together may have."""

    def results(self) -> Iterator[list[Found]]:
        """Yield results as they come. Raises KeyboardInterrupt, or the received signal, when the wish is fulfilled."""
        whole, rest_s = False, 0.0
        try:
            while not self._is_done and self.wish != "leave":
                with self.stop.listening():
                    self._set_end(self.stop.requested_end(self.fail))
                    time.sleep(rest_s)
                    found = self.look()
                    if self.beside is not None and self.stop.hears:
                        self.beside.look(self)
                    if not found and self.stop.hears:
                        time.sleep(self.every_s)
                is_alone = self.stop.hears and (self.beside is None or self.beside.is_over)
                rest_s = self.rest_s if found and is_alone else 0.0
                # Outside of `listening`: whoever takes the results may be interrupted as any code may. The generator is
                # closed then, and `finally` decides about the jobs.
                if found or not self.stop.hears:
                    yield found
            whole = True
        finally:
            if not whole:
                self._set_end(self.stop.end_without_waiting(self.fail))
        if self.stop.signal_count and self.stop.hears:
            self.stop.end()

    @property
    def _is_done(self) -> bool:
        """A run that is being ended waits for what is at work beside it, too."""
        beside = self.beside if self.stop.hears and self.wish != "go" else None
        return self.is_over and (beside is None or beside.is_over)

    @property
    def room(self) -> int:
        """How many more processes or jobs it may have."""
        others = self.beside.others(self) if self.beside is not None else 0
        return 0 if others is None else self.most - self.busy - others

    def _set_end(self, wish: RunEnd) -> None:
        if wish == self.wish:
            return
        self.wish = wish
        if not self.stop.hears:
            pass  # who is followed has said it
        elif wish == "slow":
            self.note(FAILED if self.stop.has_failed and not self.stop.signal_count else WITHDRAWING)
        elif wish == "fast":
            self.note(CANCELLING)
        self.apply_end(wish)
