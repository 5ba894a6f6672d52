"""A call's output, kept beside its result: compressed, bounded, and no part of the content."""

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

END = 1 << 20  # of a longer log, so much of its beginning and of its end


def pack(log: Path) -> bytes | None:
    """The compressed log, the same bytes for the same text; None if nothing was printed."""
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
    # gzip writes the time into its header otherwise (RFC 1952, MTIME), and equal logs would differ.
    return gzip.compress(text, mtime=0) if text else None


def log_hint(log: Path | int) -> str:
    """Where to look next after a call that said nothing itself: in its log (a path, or the open file), if there is
    something in it."""
    try:
        size = os.stat(log).st_size
    except OSError:
        size = 0
    return "see its log" if size else "it printed nothing"


def kept_lines(place: Path) -> Iterator[str]:
    """The lines of a stored log. If it is damaged, the last line says so."""
    try:
        with gzip.open(place, "rt", encoding="utf-8", errors="replace") as text:
            yield from text
    except (OSError, EOFError, zlib.error) as error:
        yield f"\n({place} is damaged: {error})\n"
