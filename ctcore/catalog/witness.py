"""The witness: how far the chain of events was, kept in the store, apart from the catalog and from provenance.jsonl.

Both records may lose their end together, and each alone looks whole then. The witness has no event; it has the number
and the digest of the last one, so what is missing is known, and a lost part that is found later is known by its digest.
"""

import os
import re
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ctcore.store.store import Store

NAME = ".witness"
_TEXT = re.compile(rb"( *(\d{1,15}) ([0-9a-f]{64}) +(\d{1,18})) ([0-9a-f]{8})\n")


class LastEvent(NamedTuple):
    """The last event, and how many bytes provenance.jsonl had with it; 0: not known."""

    seq: int
    digest: str
    size: int


@dataclass(frozen=True)
class Witness:
    """The file: one line, of one length. Where the store is not there, or cannot be written, it stays as it was: it
    says less then, and nothing untrue."""

    path: Path

    def read(self) -> LastEvent | None:
        """None where there is none, or nothing that can be read, or half of it is written."""
        try:
            found = _TEXT.fullmatch(self.path.read_bytes())
        except OSError:
            return None
        if found is None or found[5] != b"%08x" % zlib.crc32(found[1]):
            return None
        return LastEvent(int(found[2]), found[3].decode(), int(found[4]))

    @property
    def is_possible(self) -> bool:
        """Whether the store is there to keep it: a folder where its disk should be mounted is none."""
        return Store(self.path.parent).is_there and os.access(self.path.parent, os.W_OK)

    def write(self, seen: LastEvent) -> None:
        """Whoever writes holds the journal.

        In its place, because a rename would make each commit wait for the disk. That is not waited for: what a power
        failure takes of it, the next event brings.
        """
        place = os.fspath(self.path)
        if not (os.path.exists(place) or self.is_possible):
            return
        said = b"%15d %s %18d" % (seen.seq, seen.digest.encode(), seen.size)
        with suppress(OSError):
            # Without O_TRUNC: the line always has the same length, and an emptied file is no witness after a crash.
            handle = os.open(place, os.O_WRONLY | os.O_CREAT, 0o664)
            try:
                os.pwrite(handle, b"%s %08x\n" % (said, zlib.crc32(said)), 0)
            finally:
                os.close(handle)
