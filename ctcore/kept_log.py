"""⑤ What a call printed, kept beside what it made: compressed, bounded, and no part of the content."""

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from ctcore.manifest import LOG

END = 1 << 20  # of a longer log, so much of its beginning and of its end


def pack(log: Path) -> bytes | None:
    """The log for the store, the same bytes for the same text; None where nothing was printed."""
    try:
        with log.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= 2 * END:
                text = file.read()
            else:
                first = file.read(END)
                file.seek(size - END)
                left = f"\n… {size - 2 * END:,} bytes are left out here …\n".encode()
                text = first + left + file.read(END)
    except OSError:  # it was moved away meanwhile: what was made is not worse for that
        return None
    return gzip.compress(text, mtime=0) if text else None


def lines(folder: Path) -> Iterator[str] | None:
    """The log beside an artifact; None where there is none."""
    place = folder / LOG
    return _read(place) if place.is_file() else None


def _read(place: Path) -> Iterator[str]:
    try:
        with gzip.open(place, "rt", encoding="utf-8", errors="replace") as text:
            yield from text
    except (OSError, EOFError, zlib.error) as error:
        yield f"\n({place} is damaged: {error})\n"
