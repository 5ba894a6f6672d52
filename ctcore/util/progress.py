"""Progress of the current run, for the shell's bars or no listener."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

Listener = Callable[[Any], None]
Reader = Callable[[str], None]
_listener: ContextVar[Listener | None] = ContextVar("ct_progress", default=None)
_reader: ContextVar[Reader | None] = ContextVar("ct_notes", default=None)


@dataclass(frozen=True)
class StepBegun:
    """A step of a run has begun."""

    step: str


@dataclass(frozen=True)
class StepAhead:
    """Some nodes of a step are made before its turn."""

    step: str
    nodes: int


def tell(what: Any) -> None:
    """Say that something was settled, or that a step has begun."""
    listener = _listener.get()
    if listener is not None:
        listener(what)


def note(text: str) -> None:
    """Say something about how it goes, in a sentence for people."""
    reader = _reader.get()
    if reader is not None:
        reader(text)


@contextmanager
def reading(reader: Reader) -> Iterator[None]:
    """Send notes inside the block to a reader."""
    token = _reader.set(reader)
    try:
        yield
    finally:
        _reader.reset(token)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send progress inside the block to a listener."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
