"""samtools and bcftools as calls: what they say is in the error, and nothing is left in what they write."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ctcore.errors import InputError, StepError
from ctcore.step import Call


def samtools(command: str, *arguments: str | Path) -> str:
    """Run a samtools command; what it prints."""
    import pysam

    try:
        return getattr(pysam, command)(*map(str, arguments))
    except pysam.SamtoolsError as error:
        raise StepError(f"samtools {command} failed: {_said(error)}") from error


def bcftools(command: str, *arguments: str | Path) -> None:
    """Run a bcftools command that writes a file."""
    import pysam
    import pysam.bcftools

    try:
        getattr(pysam.bcftools, command)(*map(str, arguments), catch_stdout=False)
    except pysam.SamtoolsError as error:
        raise StepError(f"bcftools {command} failed: {_said(error)}") from error


def _said(error: BaseException) -> str:
    return str(error).partition("stderr=")[2].strip() or str(error)


def genome(call: Call, key: str = "genome") -> Path:
    """The reference with an index beside it, in the scratch folder; the original's folder stays as it is."""
    original = call.reference(key).resolve()
    try:
        with original.open("rb") as stream:
            first = stream.read(2)
    except OSError as error:
        raise InputError(f"reference {key}: {original}: {error.strerror}; put it back, then run again") from error
    if first[:1] != b">" and first != b"\x1f\x8b":
        raise InputError(f"reference {key}: {original.name} is not FASTA: it does not begin with '>'")
    linked = call.scratch("genome.fa")
    if not linked.exists():
        # samtools puts the index beside the name that it is given, and the link is in a folder where the step may
        # write.
        os.symlink(original, linked)
        samtools("faidx", linked)
    return linked


def primary_records(bam: Path) -> int:
    """Reads in a BAM, each counted once: without secondary and supplementary records."""
    return int(samtools("view", "-c", "-F", "0x900", bam))


def index_bam(bam: Path, index: Path) -> None:
    samtools("index", "-b", bam, "-o", index)


def bins(contigs: Sequence[tuple[str, int]], wanted: int) -> Iterable[tuple[str, int, int]]:
    """The genome in about `wanted` stretches of one width: (contig, start, end), half-open from 0."""
    total = sum(length for _, length in contigs)
    width = max(1, -(-total // wanted))
    for name, length in contigs:
        for start in range(0, length, width):
            yield name, start, min(start + width, length)
