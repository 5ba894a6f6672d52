"""Which purge an event is about: its number, and how two purges are told apart that got the same one.

A catalog that was put back from a copy counts on from there, and what it lacks may turn up later. Then the purge that
is later in the chain gets the next free number, and the event `recover` keeps which number is whose from then on.
"""

from collections.abc import Mapping
from typing import Any

from ctcore.catalog.event_log import REDACTED

NUMBERS = "purges"
"""In the body of an event `recover`: number of a purge → its first event, of those of which two had one number."""

UNRECORDED = "unrecorded"
"""In the body of an event `purge`: the folders of the store that it removed, and that were of no making then."""


class PurgeNumbers:
    """The purges of a history, whose events are taken in their order. `begun`: number → the first event of it. `news`:
    number → what its events call it, of those of which no event `recover` tells yet."""

    def __init__(self) -> None:
        self.begun: dict[int, int] = {}
        self._meant: dict[int, int] = {}  # in an event → the number
        self._twice: set[int] = set()
        self.news: dict[int, int] = {}

    def purge(self, seq: int, body: Mapping[str, Any]) -> int:
        """The number of the purge of which event `seq` tells; of one that is too long for an event, several do.

        KeyError or TypeError where it was edited so that it tells of none.
        """
        said, _, _ = body["purge"], body["patient"], [one["materialization"] for one in body["removed"]]
        # Only the first event of a purge lists what was redacted, so one without that list goes on with it.
        if said in self._meant and REDACTED not in body:
            return self._meant[said]
        number = said
        if said in self.begun:
            number = max(self.begun) + 1
            self._twice |= {said, number}
            self.news[number] = said
        self.begun[number], self._meant[said] = seq, number
        return number

    def of(self, said: int) -> int:
        """The purge that is meant by a number in an event."""
        return self._meant.get(said, said)

    def recovered(self, body: Mapping[str, Any]) -> None:
        """From this event `recover` on, these numbers are those that it gave."""
        numbers = {seq: number for number, seq in self.begun.items()}
        for said, seq in body.get(NUMBERS, {}).items():
            if seq in numbers:
                self._meant[int(said)] = numbers[seq]
                self.news.pop(numbers[seq], None)

    @property
    def changed(self) -> dict[str, int]:
        """What the next event `recover` has to keep; nothing where no two purges had one number."""
        return {str(number): self.begun[number] for number in sorted(self._twice)}
