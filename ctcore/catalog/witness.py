"""② The witness: how far the chain of events was, kept in the store, apart from the catalog and from provenance.jsonl.

Both records may lose their end together, and each alone looks whole then. The witness has no event; it has the number
and the digest of the last one, so what is missing is known, and a lost part that is found later is known by its digest.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ctcore.store import Store

NAME = ".witness"
_TEXT = re.compile(rb"(\d{1,15}) ([0-9a-f]{64}) (\d{1,18})\n")


class Seen(NamedTuple):
    """The last event, and how many bytes provenance.jsonl had with it."""

    seq: int
    digest: str
    size: int


@dataclass(frozen=True)
class Witness:
    """The file. Where the store is not there, or cannot be written, it stays as it was: it says less then, and nothing
    untrue."""

    path: Path

    def seen(self) -> Seen | None:
        """None where there is none, or nothing that can be read."""
        try:
            found = _TEXT.fullmatch(self.path.read_bytes())
        except OSError:
            return None
        return Seen(int(found[1]), found[2].decode(), int(found[3])) if found else None

    @property
    def is_possible(self) -> bool:
        """Whether the store is there to keep it: a folder where its disk should be mounted is none."""
        return Store(self.path.parent).is_there and os.access(self.path.parent, os.W_OK)

    def write(self, seen: Seen) -> None:
        """Not waited for: what a power failure takes of it, the next event brings. Whoever writes holds the journal."""
        if not self.is_possible:
            return
        part = self.path.with_name(f"{NAME}.new")
        with suppress(OSError):
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o664)
            try:
                os.write(handle, f"{seen.seq} {seen.digest} {seen.size}\n".encode())
            finally:
                os.close(handle)
            os.replace(part, self.path)
