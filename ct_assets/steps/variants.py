"""cohort: all merged_reads → joint_variants → filtered_variants. Genotypes of everybody at the same sites."""

from dataclasses import dataclass
from pathlib import Path

from ctcore.contract import NotEmpty, Table
from ctcore.errors import InputError
from ctcore.step import Call, Facts, Output, Resources, step

from ._tables import write_tsv
from ._tools import bcftools, genome
from ._vcf import SITE, publish_vcf, read_vcf, site_of

GENOTYPES = Table(
    columns={"chrom": "text", "pos": "integer", "ref": "text", "alt": "text"},
    rows_min=0,
    ranges={"pos": (1, float("inf"))},
    unique=SITE,
    others="text",
)


@dataclass(frozen=True)
class CallingParams:
    """What bcftools counts: reads a position and file at most, mapping quality and base quality at least."""

    # bcftools' own defaults (`bcftools mpileup`), written down here so that another version with other ones changes
    # nothing.
    max_depth: int = 250
    min_mapping_quality: int = 0
    min_base_quality: int = 1


@step(
    level="cohort",
    inputs={"merged": "merged_reads"},
    references=("genome",),
    params=CallingParams,
    outputs={
        "vcf": Output("joint.vcf.gz", NotEmpty()),
        "index": Output("joint.vcf.gz.tbi", NotEmpty()),
        "genotypes": Output("genotypes.tsv", GENOTYPES, preview=True),
    },
    resources=Resources(cpus=1, memory_gb=2.0, minutes=720),
    kinds=("vcf", "bcftools"),
    group="cohort",
)
def joint_variants(call: Call) -> Facts:
    """Variants of the whole cohort, called together from the reads of all specimens."""
    params: CallingParams = call.params or CallingParams()
    # bcftools has the samples in the order of the files, so it must not depend on who was registered first.
    bams = [source["bam"] for source in sorted(call.many("merged"), key=lambda source: source.entity)]
    if not bams:
        raise InputError("no specimen of this cohort has reads; register one, or see who is excluded and why")
    listed, pileup, called = call.scratch("bams.txt"), call.scratch("pileup.bcf"), call.scratch("called.vcf")
    listed.write_text("".join(f"{bam}\n" for bam in bams))
    limits = ("-d", params.max_depth, "-q", params.min_mapping_quality, "-Q", params.min_base_quality)
    quiet = ("--no-version", "-O")
    bcftools("mpileup", "-f", genome(call), *map(str, limits), *quiet, "u", "-o", pileup, "-b", listed)
    bcftools("call", "-mv", *quiet, "v", "-o", called, pileup)
    publish_vcf(called, call.out("vcf"))
    found = read_vcf(call.out("vcf"))
    rows = [(site.chrom, site.pos, site.ref, site.alt, *site.genotypes) for site in found.sites]
    write_tsv(call.out("genotypes"), (*SITE, *found.samples), rows)
    snvs = sum(site.is_snv for site in found.sites)
    return {"specimens": len(found.samples), "sites": len(rows), "snvs": snvs, "indels": len(rows) - snvs}


@dataclass(frozen=True)
class FilterParams:
    """A site is kept with at least this QUAL, and at most this fraction of specimens without a genotype."""

    min_qual: float = 20.0
    max_missing: float = 0.5


@step(
    level="cohort",
    inputs={"joint": "joint_variants"},
    params=FilterParams,
    outputs={
        "vcf": Output("filtered.vcf.gz", NotEmpty()),
        "index": Output("filtered.vcf.gz.tbi", NotEmpty()),
        "counts": Output(
            "filter_counts.tsv",
            Table(columns={"sites": "text", "count": "integer"}, unique=("sites",)),
            preview=True,
        ),
    },
    resources=Resources(cpus=1, memory_gb=1.0, minutes=60),
    kinds=("vcf",),
    group="cohort",
)
def filtered_variants(call: Call) -> Facts:
    """The joint variants that are certain enough and seen in enough specimens."""
    params: FilterParams = call.params or FilterParams()
    text = call.scratch("filtered.vcf")
    counts = _filter(call.one("joint")["vcf"], text, params)
    publish_vcf(text, call.out("vcf"))
    write_tsv(call.out("counts"), ("sites", "count"), list(counts.items()))
    return {name.replace(" ", "_"): count for name, count in counts.items()}


def _filter(joint: Path, kept: Path, params: FilterParams) -> dict[str, int]:
    """Write the sites that pass; count why the others do not (a site may fail for both reasons)."""
    import pysam

    counts = {"joint": 0, "low quality": 0, "too many missing": 0, "kept": 0}
    with (
        pysam.VariantFile(str(joint)) as source,
        pysam.VariantFile(str(kept), "w", header=source.header) as out,
    ):
        for record in source:
            site = site_of(record)
            low, sparse = site.qual < params.min_qual, site.missing > params.max_missing
            counts["joint"] += 1
            counts["low quality"] += low
            counts["too many missing"] += sparse
            if not (low or sparse):
                counts["kept"] += 1
                out.write(record)
    return counts
