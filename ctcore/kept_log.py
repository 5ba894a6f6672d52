"""⑤ What a call printed, kept beside what it made: compressed, bounded, and no part of the content."""

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

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


def kept_lines(place: Path) -> Iterator[str]:
    """The lines of a kept log; where it is damaged, the last one says so."""
    try:
        with gzip.open(place, "rt", encoding="utf-8", errors="replace") as text:
            yield from text
    except (OSError, EOFError, zlib.error) as error:
        yield f"\n({place} is damaged: {error})\n"
