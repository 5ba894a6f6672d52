"""Times of events and attempts: UTC, ISO 8601, milliseconds. Only the end of a consent depends on the day."""

import time
from datetime import datetime


def utc(seconds: float) -> str:
    """Seconds since 1970 as text."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


def now() -> str:
    return utc(time.time())


def seconds_since(at: str) -> float:
    """Seconds since a time that was written as text."""
    return time.time() - datetime.fromisoformat(at).timestamp()


def today() -> str:
    """The day, as `2026-11-21`; days begin at midnight UTC."""
    return now()[:10]
