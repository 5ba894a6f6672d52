"""Progress of the current run, for whoever listens: the shell's bars, or nobody."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Listener = Callable[[Any], None]
_listener: ContextVar[Listener | None] = ContextVar("ct_progress", default=None)


def tell(what: Any) -> None:
    """Say that something was settled."""
    listener = _listener.get()
    if listener is not None:
        listener(what)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send what is told inside the block to a listener."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
