"""Garbage collection, put off while a whole cohort is in memory: it costs a third there, and nothing can go yet."""

import gc
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def without_collecting(function: Callable[P, R]) -> Callable[P, R]:
    """Calls the function with Python's cycle collector off. What is not in a cycle is freed all the same."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        was_on = gc.isenabled()
        gc.disable()
        try:
            return function(*args, **kwargs)
        finally:
            if was_on:
                gc.enable()

    return call
