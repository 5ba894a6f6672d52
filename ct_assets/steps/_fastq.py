"""Paired FASTQ, read to its end: every record looked at, every way of being damaged named."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from typing import IO

from ctcore.errors import InputError

LETTERS = b"ACGTUNRYSWKMBDHVacgtunryswkmbdhv."
BATCH = 20_000
Q30 = 30
AGAIN = "fetch it again from its source, and register it"


@dataclass(frozen=True)
class Record:
    """One read. `name` is without its mate; `mate` is 1 or 2, or 0 where the name does not say."""

    name: bytes
    mate: int
    bases: bytes
    quality: bytes


@dataclass
class Tally:
    """What the reads of one file add up to; `by_cycle` maps a cycle (from 0) to (bases, sum of qualities)."""

    reads: int = 0
    bases: int = 0
    gc: int = 0
    n: int = 0
    q30: int = 0
    by_cycle: list[tuple[int, int]] = field(default_factory=list)
    _waiting: dict[int, list[bytes]] = field(default_factory=dict)
    _held: int = 0

    def add(self, record: Record) -> None:
        self.reads += 1
        upper = record.bases.upper()
        self.bases += len(upper)
        self.gc += upper.count(b"G") + upper.count(b"C")
        # `.` was Illumina's N.
        self.n += upper.count(b"N") + upper.count(b".")
        # By length, as a matrix has rows of one length; numpy called for each read takes four times as long (tried).
        self._waiting.setdefault(len(upper), []).append(record.quality)
        self._held += 1
        if self._held == BATCH:
            self.flush()

    def flush(self) -> None:
        """Add up the qualities that wait: one matrix for each read length."""
        import numpy as np

        for length, texts in self._waiting.items():
            # Phred+33: `!` is quality 0.
            matrix = np.frombuffer(b"".join(texts), dtype=np.uint8).reshape(len(texts), length) - 33
            self.q30 += int((matrix >= Q30).sum())
            self._by_cycle(len(texts), matrix.sum(axis=0, dtype=np.int64).tolist())
        self._waiting, self._held = {}, 0

    def _by_cycle(self, reads: int, sums: list[int]) -> None:
        self.by_cycle.extend([(0, 0)] * (len(sums) - len(self.by_cycle)))
        for cycle, total in enumerate(sums):
            bases, so_far = self.by_cycle[cycle]
            self.by_cycle[cycle] = bases + reads, so_far + total


def tally_pairs(first: Path, second: Path) -> tuple[Tally, Tally]:
    """Read both files to their ends. InputError where they are damaged or not mates of the same reads."""
    tallies = Tally(), Tally()
    equal = 0
    for number, (one, two) in enumerate(zip_longest(records(first), records(second)), 1):
        if one is None or two is None:
            raise InputError(_unequal(first, second, number - 1, one is None))
        _check_mates(first, second, number, one, two)
        equal += one.bases == two.bases
        tallies[0].add(one)
        tallies[1].add(two)
    if not tallies[0].reads:
        raise InputError(f"{first} and {second} have no reads; {AGAIN}")
    if equal == tallies[0].reads:
        raise InputError(f"{first} and {second} hold the same reads; give fastq_2 its own file in the sheet")
    for tally in tallies:
        tally.flush()
    return tallies


def records(path: Path) -> Iterator[Record]:
    """The reads of a FASTQ file, gzipped or not. InputError names the file and the record."""
    with _opened(path) as stream:
        number = 0
        while lines := list(islice(stream, 4)):
            if len(lines) < 4 and not b"".join(lines).strip():
                return  # blank lines at the end
            number += 1
            yield _record(path, number, [line.rstrip(b"\r\n") for line in lines])


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Whatever zlib says while the file is read becomes a sentence about the file."""
    try:
        with path.open("rb") as raw:
            head = raw.read(2)
            raw.seek(0)
            if not head:
                raise InputError(f"{path} is empty; {AGAIN}")
            if head != b"\x1f\x8b" and head[:1] != b"@":
                raise InputError(f"{path} is neither gzip nor FASTQ; {AGAIN}")
            if head == b"\x1f\x8b":
                # Unlike zlib alone, it reads on after the first member: bgzip, and files that were joined by `cat`,
                # have many.
                with gzip.GzipFile(fileobj=raw) as stream:
                    yield stream  # type: ignore[misc]
            else:
                yield raw
    except EOFError as error:
        raise InputError(f"{path} is truncated: its gzip stream has no end; {AGAIN}") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged: {error}; {AGAIN}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; {AGAIN}") from error


def _record(path: Path, number: int, lines: list[bytes]) -> Record:
    """Check the four lines of a record."""
    where = f"{path} record {number}"
    if len(lines) < 4:
        raise InputError(f"{where} has {len(lines)} of 4 lines: the file is cut off; {AGAIN}")
    header, bases, plus, quality = lines
    if header[:1] != b"@" or plus[:1] != b"+":
        raise InputError(f"{where} is not FASTQ: line 1 must begin with @, line 3 with +; {AGAIN}")
    if not bases or len(bases) != len(quality):
        raise InputError(f"{where} has {len(bases)} bases and {len(quality)} qualities; {AGAIN}")
    if bases.translate(None, LETTERS):
        raise InputError(f"{where} has letters that are not bases: {_text(bases)}; {AGAIN}")
    if min(quality) < 33 or max(quality) > 126:
        raise InputError(f"{where} has qualities outside of ! to ~: {_text(quality)}; {AGAIN}")
    return Record(*_name(header[1:]), bases, quality)


def _name(header: bytes) -> tuple[bytes, int]:
    """The name without its mate, and the mate: `name/1`, or `name 1:N:0:ACGT` as Illumina writes."""
    name, _, comment = header.partition(b" ")
    if name[-2:] in (b"/1", b"/2"):
        return name[:-2], int(name[-1:])
    return name, int(comment[:1]) if comment[:2] in (b"1:", b"2:") else 0


def _check_mates(first: Path, second: Path, number: int, one: Record, two: Record) -> None:
    if one.name != two.name:
        raise InputError(
            f"{first} and {second} are not mates: record {number} is {_text(one.name)} in one and "
            f"{_text(two.name)} in the other; give both files of the same library, unsorted, in the sheet"
        )
    if one.mate == 2 or two.mate == 1:
        raise InputError(
            f"{first} holds mate {one.mate} and {second} mate {two.mate} (record {number}); "
            "exchange fastq_1 and fastq_2 in the sheet"
        )


def _unequal(first: Path, second: Path, pairs: int, first_ended: bool) -> str:
    short, long = (first, second) if first_ended else (second, first)
    return f"{short} ends after {pairs} reads, {long} goes on: a mate is missing for each further read; {AGAIN}"


def _text(raw: bytes) -> str:
    return ascii(raw[:60].decode("latin-1"))
