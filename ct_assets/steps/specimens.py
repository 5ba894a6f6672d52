"""specimen: the aligned_reads of its assays → merged_reads. A later assay of the specimen tops it up."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ctcore.contract import NotEmpty
from ctcore.errors import InputError
from ctcore.step import Call, Facts, Output, Resources, Source, step

from ._tools import index_bam, primary_records, samtools


@step(
    level="specimen",
    inputs={"aligned": "aligned_reads"},
    columns=("specimen.id",),
    outputs={
        "bam": Output("merged.bam", NotEmpty()),
        "index": Output("merged.bam.bai", NotEmpty()),
    },
    resources=Resources(cpus=1, memory_gb=1.0, minutes=120),
    kinds=("bam", "samtools"),
    group="specimen_steps",
)
def merged_reads(call: Call) -> Facts:
    """All reads of one specimen in one BAM; each keeps the read group of its assay."""
    sources = sorted(call.many("aligned"), key=lambda source: source.entity)
    problems = list(_strangers(sources, call.column("specimen.id")))
    if problems:
        raise InputError("; ".join(problems) + "; make aligned_reads again")
    bams = [source["bam"] for source in sources]
    _merge(bams, call.out("bam"))
    index_bam(call.out("bam"), call.out("index"))
    expected, reads = sum(map(primary_records, bams)), primary_records(call.out("bam"))
    if reads != expected:
        raise InputError(f"the merged BAM has {reads} reads of {expected}; `ct verify`, then run again")
    return {"assays": len(bams), "reads": reads}


def _merge(bams: Sequence[Path], merged: Path) -> None:
    if not bams:
        raise InputError("no aligned reads to merge: none of the specimen's assays is usable")
    if len(bams) == 1:
        shutil.copyfile(bams[0], merged)
    else:
        samtools("merge", "--no-PG", "-o", merged, *bams)


def _strangers(sources: Sequence[Source], specimen: str) -> Iterator[str]:
    """A BAM of another specimen must never be merged in, whatever the catalog said when it was made."""
    import pysam

    for source in sources:
        with pysam.AlignmentFile(str(source["bam"]), "rb") as bam:
            for group in bam.header.to_dict().get("RG", ()):
                if group.get("SM") != specimen:
                    yield f"{source.entity}: its reads are of {group.get('SM')}, not of {specimen}"
