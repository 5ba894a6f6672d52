"""VCF files as the cohort steps read and write them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pysam

SITE = ("chrom", "pos", "ref", "alt")
HOW_IT_WAS_MADE = (b"##reference=", b"##bcftools")  # header lines with paths, versions, commands


@dataclass(frozen=True)
class Site:
    """A variant site; `alleles` are each sample's, None where it has no genotype."""

    chrom: str
    pos: int
    ref: str
    alts: tuple[str, ...]
    qual: float
    alleles: tuple[tuple[int | None, ...], ...]
    genotypes: tuple[str, ...]

    @property
    def alt(self) -> str:
        return ",".join(self.alts) or "."

    @property
    def is_snv(self) -> bool:
        return len(self.ref) == 1 and all(len(alt) == 1 for alt in self.alts)

    @property
    def missing(self) -> float:
        """The fraction of samples without a whole genotype."""
        return sum(None in one for one in self.alleles) / max(1, len(self.alleles))

    @property
    def alt_frequency(self) -> float | None:
        """Alleles that are not the reference, of all that are known."""
        known = [allele for one in self.alleles for allele in one if allele is not None]
        return sum(allele > 0 for allele in known) / len(known) if known else None


@dataclass(frozen=True)
class Variants:
    """A VCF in memory: its samples, its contigs with their lengths, its sites in order."""

    samples: list[str]
    contigs: dict[str, int]
    sites: list[Site]


def read_vcf(vcf: Path) -> Variants:
    import pysam

    with pysam.VariantFile(str(vcf)) as source:
        contigs = {str(name): contig.length or 0 for name, contig in source.header.contigs.items()}
        return Variants(list(source.header.samples), contigs, [site_of(record) for record in source])


def site_of(record: "pysam.VariantRecord") -> Site:
    samples = record.samples.values()
    return Site(
        chrom=record.chrom,
        pos=record.pos,
        ref=record.ref or ".",
        alts=tuple(record.alts or ()),
        qual=record.qual or 0.0,
        alleles=tuple(sample["GT"] for sample in samples),
        genotypes=tuple(_genotype(sample) for sample in samples),
    )


def _genotype(sample: "pysam.VariantRecordSample") -> str:
    alleles = ["." if allele is None else str(allele) for allele in sample["GT"]]
    return ("|" if sample.phased else "/").join(alleles)


def publish_vcf(text: Path, compressed: Path) -> None:
    """Compress and index a VCF without the header lines that say where and how it was made."""
    import pysam

    clean = text.with_name("clean.vcf")
    with text.open("rb") as source, clean.open("wb") as target:
        target.writelines(line for line in source if not line.startswith(HOW_IT_WAS_MADE))
    pysam.tabix_compress(str(clean), str(compressed), force=True)
    pysam.tabix_index(str(compressed), preset="vcf", force=True)
