"""assay: checked reads → aligned_reads → alignment_qc. One BAM a library, and what it looks like."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctcore.contract import NotEmpty, Table
from ctcore.errors import InputError, StepError
from ctcore.step import Call, Facts, Output, Resources, step

from ._plots import COLOURS, picture
from ._tables import fraction, read_tsv, write_row, write_tsv
from ._tools import bins, genome, index_bam, primary_records, samtools

# By their beginnings: minimap2 also takes `-t4` and `-xsr`. `--sam-hit-only` leaves unmapped reads out, and the count
# of reads would no longer come out even.
OURS = ("-a", "-x", "-o", "-t", "-R", "--sam-hit-only")

QC_TABLE = Table(
    columns={
        "reads": "integer",
        "mapped": "integer",
        "mapped_fraction": "real",
        "properly_paired_fraction": "real",
        "mean_depth": "real",
        "breadth_1x": "real",
        "mean_mapq": "real",
        "insert_size_median": "real",
    },
    ranges={
        "reads": (1, float("inf")),
        "mapped": (0, float("inf")),
        "mapped_fraction": (0, 1),
        "properly_paired_fraction": (0, 1),
        "mean_depth": (0, float("inf")),
        "breadth_1x": (0, 1),
        # 255 means that it is unknown (SAM specification, section 1.4).
        "mean_mapq": (0, 255),
        "insert_size_median": (0, float("inf")),
    },
    blank=("insert_size_median",),
)
COVERAGE_TABLE = Table(
    columns={"chrom": "text", "start": "integer", "end": "integer", "mean_depth": "real"},
    ranges={"start": (0, float("inf")), "end": (1, float("inf")), "mean_depth": (0, float("inf"))},
    unique=("chrom", "start"),
)


@dataclass(frozen=True)
class AlignmentParams:
    """minimap2's preset, and further arguments of its command line."""

    preset: str = "sr"
    extra: tuple[str, ...] = ()


@step(
    level="assay",
    inputs={"qc": "reads_qc"},
    files=("fastq_1", "fastq_2"),
    references=("genome",),
    columns=("specimen.id", "assay.id"),
    params=AlignmentParams,
    outputs={
        "bam": Output("aligned.bam", NotEmpty()),
        "index": Output("aligned.bam.bai", NotEmpty()),
    },
    resources=Resources(cpus=1, memory_gb=2.0, minutes=240),
    kinds=("bam", "minimap2"),
    group="assay_steps",
)
def aligned_reads(call: Call) -> Facts:
    """The reads of one library on the genome: minimap2 with a read group, sorted by coordinate, indexed."""
    pairs = int(read_tsv(call.one("qc")["table"])[0]["read_pairs"])
    sam = call.scratch("clean.sam")
    _without_programs(_minimap2(call), sam)
    # `--no-PG`: otherwise the command, with the paths of this run, is in the BAM, and equal reads give other bytes.
    # `-@` counts additional threads (samtools(1)).
    samtools("sort", "--no-PG", "-@", str(call.cpus - 1), "-T", call.scratch("sort"), "-o", call.out("bam"), sam)
    index_bam(call.out("bam"), call.out("index"))
    reads = primary_records(call.out("bam"))
    # minimap2 only warns where one file ends before the other ("extra records skipped"), and ends as if all were well.
    if reads != 2 * pairs:
        raise InputError(
            f"{call.file('fastq_1')}: minimap2 read {reads} of {2 * pairs} reads that reads_qc counted; "
            "the files changed or are damaged: `ct verify`, then run again"
        )
    return {"reads": reads}


def _minimap2(call: Call) -> Path:
    """Run minimap2 in this process; the SAM that it wrote."""
    import pyminimap2

    params: AlignmentParams = call.params or AlignmentParams()
    for argument in params.extra:
        if argument.startswith(OURS):
            raise StepError(f"aligned_reads: parameter extra = {argument!r}: {', '.join(OURS)} are set by the step")
    assay, specimen = call.column("assay.id"), call.column("specimen.id")
    sam = call.scratch("minimap2.sam")
    group = rf"@RG\tID:{assay}\tSM:{specimen}\tLB:{assay}"
    command = ["-a", "-x", params.preset, "-R", group, "-t", str(call.cpus), "-o", sam, *params.extra]
    reads = [call.file("fastq_1"), call.file("fastq_2")]
    _, said = pyminimap2.main([str(word) for word in (*command, genome(call), *reads)])
    sys.stderr.write(said)
    # The binding returns what minimap2 printed, and no exit code; after an error there is an empty SAM as well.
    if "[ERROR]" in said or not sam.is_file() or not sam.stat().st_size:
        raise StepError(f"minimap2 failed: {said.strip() or 'it wrote nothing'}")
    return sam


def _without_programs(sam: Path, clean: Path) -> None:
    """Drop the @PG lines: they hold the paths of this one run."""
    with sam.open("rb") as source, clean.open("wb") as target:
        target.writelines(line for line in source if not line.startswith(b"@PG\t"))
    sam.unlink()


@dataclass(frozen=True)
class AlignmentQcParams:
    """In about how many stretches the genome is cut for the coverage table."""

    bins: int = 84


@step(
    level="assay",
    inputs={"aligned": "aligned_reads"},
    params=AlignmentQcParams,
    outputs={
        "table": Output("alignment_qc.tsv", QC_TABLE, preview=True),
        "coverage": Output("coverage.tsv", COVERAGE_TABLE),
        "plot": Output("coverage.png", NotEmpty(), preview=True),
    },
    resources=Resources(cpus=1, memory_gb=1.0, minutes=120),
    kinds=("bam", "samtools"),
    group="assay_steps",
)
def alignment_qc(call: Call) -> Facts:
    """How the reads of one library lie on the genome: mapped, paired, depth, breadth, insert size."""
    params: AlignmentQcParams = call.params or AlignmentQcParams()
    aligned = call.one("aligned")
    seen = _look_through(aligned["bam"])
    depths = _depths(aligned["bam"], call.scratch("bins.bed"), seen.contigs, params.bins)
    length = sum(one.end - one.start for one in depths)
    measured = {
        "reads": seen.reads,
        "mapped": seen.mapped,
        "mapped_fraction": fraction(seen.mapped, seen.reads),
        "properly_paired_fraction": fraction(seen.proper, seen.reads),
        "mean_depth": fraction(sum(one.bases for one in depths), length),
        "breadth_1x": fraction(sum(one.covered for one in depths), length),
        "mean_mapq": fraction(seen.mapq, seen.mapped),
        "insert_size_median": _median(seen.inserts),
    }
    write_row(call.out("table"), measured)
    rows = [(one.chrom, one.start, one.end, one.mean) for one in depths]
    write_tsv(call.out("coverage"), ("chrom", "start", "end", "mean_depth"), rows)
    _draw(call.out("plot"), depths)
    return {name: value for name, value in measured.items() if value is not None}


@dataclass
class _Seen:
    """What one pass over a BAM counts: primary records only; insert sizes of proper pairs, once a pair."""

    contigs: list[tuple[str, int]]
    reads: int = 0
    mapped: int = 0
    proper: int = 0
    mapq: int = 0
    inserts: Counter[int] = field(default_factory=Counter)


def _look_through(bam: Path) -> _Seen:
    import pysam

    with pysam.AlignmentFile(str(bam), "rb") as source:
        seen = _Seen(list(zip(source.references, source.lengths, strict=True)))
        for read in source.fetch(until_eof=True):
            if read.is_secondary or read.is_supplementary:
                continue
            seen.reads += 1
            if read.is_unmapped:
                continue
            seen.mapped += 1
            seen.mapq += read.mapping_quality
            if read.is_proper_pair:
                seen.proper += 1
                if read.is_read1:
                    seen.inserts[abs(read.template_length)] += 1
    return seen


def _median(counts: Counter[int]) -> float | None:
    """The median of counted values; None of nothing."""
    total = counts.total()
    if not total:
        return None
    middle, passed, low = (total - 1) // 2, 0, None
    for value in sorted(counts):
        passed += counts[value]
        if low is None and passed > middle:
            low = value
        if low is not None and passed > total // 2:
            return (low + value) / 2
    return None


@dataclass(frozen=True)
class _Bin:
    """A stretch of the genome: the sum of the depths of its bases, and how many are covered at all."""

    chrom: str
    start: int
    end: int
    bases: int
    covered: int

    @property
    def mean(self) -> float:
        return fraction(self.bases, self.end - self.start)


def _depths(bam: Path, bed: Path, contigs: Sequence[tuple[str, int]], wanted: int) -> list[_Bin]:
    """Depth by bin, deletions not counted, both mates counted where they overlap."""
    bed.write_text("".join(f"{name}\t{start}\t{end}\n" for name, start, end in bins(contigs, wanted)))
    # `-j` leaves out deletions and skipped bases; `-d 1` adds a column: the bases with a depth of 1 or more
    # (samtools-bedcov(1)).
    lines = samtools("bedcov", "-j", "-d", "1", bed, bam).splitlines()
    return [_Bin(chrom, *map(int, rest)) for chrom, *rest in (line.split("\t") for line in lines)]


def _draw(path: Path, depths: Sequence[_Bin]) -> None:
    with picture(path, (5.6, 2.2)) as axes:
        edges = [0]
        for one in depths:
            edges.append(edges[-1] + one.end - one.start)
        axes.stairs([one.mean for one in depths], edges, fill=True, color=COLOURS[0], alpha=0.25)
        axes.stairs([one.mean for one in depths], edges, color=COLOURS[0], lw=1.2)
        axes.set(xlabel="position along the reference (bp)", ylabel="mean depth", xlim=(0, edges[-1]))
        axes.set_ylim(bottom=0)
