"""Times of events and attempts: UTC, ISO 8601, milliseconds. No verdict depends on one."""

import time


def utc(seconds: float) -> str:
    """Seconds since 1970 as text."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


def now() -> str:
    return utc(time.time())
