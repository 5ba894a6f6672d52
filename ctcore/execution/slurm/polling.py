"""When to ask Slurm again: less often while nothing changes, and while it does not answer."""

import time

SLOWER = 1.5
AT_MOST = 10  # times the profile's poll, while nothing changes
UNANSWERED_S = 60.0


class Polling:
    """A clock for one watcher."""

    def __init__(self, every_s: float) -> None:
        self.every_s = self.wait_s = every_s
        self.failures = 0
        self._next = 0.0

    def is_due(self) -> bool:
        return time.monotonic() >= self._next

    def expect_change(self) -> None:
        """Something was submitted or cancelled: its state is worth knowing after the usual time."""
        self.wait_s = self.every_s
        self._next = min(self._next, time.monotonic() + self.every_s)

    def mark_answered(self, at: float, changed: bool) -> None:
        self.failures = 0
        self.wait_s = self.every_s if changed else min(self.wait_s * SLOWER, AT_MOST * self.every_s)
        self._next = at + self.wait_s

    def mark_unanswered(self, at: float) -> None:
        self.failures += 1
        self.wait_s = min(self.wait_s * 2, max(UNANSWERED_S, self.every_s))
        self._next = at + self.wait_s
