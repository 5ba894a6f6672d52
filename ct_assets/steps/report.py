"""cohort: quality, coverage and variants → cohort_report. One page for people, to be opened anywhere."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ctcore.contract import NotEmpty
from ctcore.step import Call, Facts, Output, Resources, step

from ._page import PAGE, Part, page, section
from ._svg import heatmap, lollipops
from ._tables import read_tsv
from ._vcf import Site, Variants, read_vcf

SHOWN_ASSAYS, SHOWN_SPECIMENS, SHOWN_SITES = 60, 40, 200
FOOT = (
    "Reads aligned by minimap2, merged by specimen with samtools, called together with bcftools. "
    "This page is one file and loads nothing."
)
STYLE = """\
.share{background:#2563eb}
.g{text-align:center;min-width:64px}
td.g{border:2px solid var(--paper)}
.d0{background:#f3f5f8;color:#4b5563}.d1{background:#93b8f5;color:#0b2451}.d2{background:#1d4ed8;color:#fff}
.dm{background:#fff;color:#6b7280}
"""


@dataclass(frozen=True)
class _Assay:
    """One line of the quality table: what is known of an assay."""

    name: str
    specimen: str
    patient: str
    reads: Mapping[str, str]
    aligned: Mapping[str, str]

    @property
    def depth(self) -> float:
        return float(self.aligned["mean_depth"])


@step(
    level="cohort",
    inputs={
        "variants": "filtered_variants",
        "coverage": "coverage_matrix",
        "alignment": "alignment_qc",
        "reads": "reads_qc",
    },
    columns=("patient.id", "specimen.id", "assay.id"),
    outputs={"page": Output("report.html", NotEmpty())},
    resources=Resources(cpus=1, memory_gb=1.0, minutes=30),
    kinds=("html",),
    code=PAGE,
    group="cohort",
)
def cohort_report(call: Call) -> Facts:
    """The cohort on one page: numbers, quality of each assay, coverage, genotypes, allele frequencies."""
    assays = sorted(_assays(call), key=lambda assay: (assay.patient, assay.specimen, assay.name))
    variants = read_vcf(call.one("variants")["vcf"])
    counts = {row["sites"]: int(row["count"]) for row in read_tsv(call.one("variants")["counts"])}
    parts = [
        _summary(assays, variants),
        _quality(assays),
        _coverage(assays, read_tsv(call.one("coverage")["matrix"])),
        _genotypes(variants, counts, {assay.specimen: assay.patient for assay in assays}),
        _frequencies(variants),
    ]
    patients = len({assay.patient for assay in assays})
    counted = ((patients, "patient"), (len(variants.samples), "specimen"), (len(assays), "assay"))
    said = ", ".join(_many(count, what) for count, what in counted)
    call.out("page").write_text(page("Cohort report", said, parts, FOOT, STYLE), encoding="utf-8")
    return {"patients": patients, "assays": len(assays), "sites": len(variants.sites)}


def _assays(call: Call) -> Iterator[_Assay]:
    reads = {source.entity: source for source in call.many("reads")}
    for source in call.many("alignment"):
        name, specimen, patient = (source.column(column) for column in ("assay.id", "specimen.id", "patient.id"))
        qc = read_tsv(reads[source.entity]["table"])[0]
        yield _Assay(name, specimen, patient, qc, read_tsv(source["table"])[0])


def _summary(assays: Sequence[_Assay], variants: Variants) -> Part:
    pairs = sum(int(assay.reads["read_pairs"]) for assay in assays)
    mapped = sum(int(assay.aligned["mapped"]) for assay in assays)
    reads = sum(int(assay.aligned["reads"]) for assay in assays)
    depth = sum(assay.depth for assay in assays) / max(1, len({assay.specimen for assay in assays}))
    snvs = sum(site.is_snv for site in variants.sites)
    shown = [
        (len({assay.patient for assay in assays}), "patients"),
        (len(assays), "assays"),
        (f"{pairs:,}", "read pairs"),
        (f"{100 * mapped / max(1, reads):.1f}%", "reads mapped"),
        (f"{depth:.1f}×", "mean depth a specimen"),
        (f"{len(variants.sites):,}", f"variant sites ({snvs:,} SNV, {len(variants.sites) - snvs:,} indel)"),
    ]
    return {"cards": shown}


def _quality(assays: Sequence[_Assay]) -> Part:
    heads = ("Assay", "Read pairs", "Q30", "GC", "Mapped", "Proper pairs", "Depth", "Covered", "Insert")
    shown, lead = _lowest(assays)
    rows = [
        [
            {"text": assay.name, "small": f"{assay.patient} · {assay.specimen}"},
            int(assay.reads["read_pairs"]),
            _percent(assay.reads["q30_fraction"]),
            _number(f"{100 * float(assay.reads['gc_fraction']):.1f}%"),
            _percent(assay.aligned["mapped_fraction"]),
            _percent(assay.aligned["properly_paired_fraction"]),
            _number(f"{assay.depth:.1f}×"),
            _percent(assay.aligned["breadth_1x"]),
            _number(_insert(assay.aligned["insert_size_median"])),
        ]
        for assay in shown
    ]
    said = "Each assay as sequenced and as aligned. Covered: bases of the genome with at least one read." + lead
    return section("Quality of the assays", said, _table([heads[0], *map(_number, heads[1:])], rows))


def _insert(median: str) -> str:
    return f"{float(median):.0f} bp" if median else "–"


def _number(text: str) -> Part:
    return {"text": text, "class": "n"}


def _percent(text: str) -> Part:
    """A fraction, with a small bar."""
    said, width = f"{100 * float(text):.1f}%", round(100 * min(1.0, max(0.0, float(text))))
    return {**_number(said), "bar": {"class": "thin", "title": said, "shares": [{"class": "share", "width": width}]}}


def _table(heads: Sequence[Any], rows: Sequence[Sequence[Any]]) -> Part:
    return {"table": {"heads": heads, "rows": rows}}


def _coverage(assays: Sequence[_Assay], matrix: Sequence[Mapping[str, str]]) -> Part:
    shown, lead = _lowest(assays)
    bins = [(row["chrom"], int(row["start"]), int(row["end"])) for row in matrix]
    depths = [[float(row[assay.name]) for row in matrix] for assay in shown]
    said = "Mean depth of each assay along the genome; pale is thin. Point at a field for its value."
    return section("Coverage", said + lead, heatmap([assay.name for assay in shown], bins, depths))


def _genotypes(variants: Variants, counts: Mapping[str, int], patients: Mapping[str, str]) -> Part:
    names = variants.samples[:SHOWN_SPECIMENS]
    heads: list[Any] = ["Site", "Change", _number("Quality")]
    heads += [{"text": name, "small": patients.get(name, ""), "class": "g"} for name in names]
    rows = [
        [
            f"{site.chrom}:{site.pos:,}",
            _change(site),
            _number(f"{site.qual:.0f}"),
            *(_genotype(site, sample) for sample in range(len(names))),
        ]
        for site in variants.sites[:SHOWN_SITES]
    ]
    said = (
        f"{counts['kept']:,} of {counts['joint']:,} jointly called sites are kept. Of low quality: "
        f"{counts['low quality']:,}; without genotype in too many specimens: {counts['too many missing']:,}."
    )
    said += _rest(len(variants.sites), SHOWN_SITES, "sites") + _rest(
        len(variants.samples), SHOWN_SPECIMENS, "specimens"
    )
    doses = {"d0": "reference only", "d1": "one alternative allele", "d2": "two or more", "dm": "not known"}
    legend = [{"class": name, "text": meaning} for name, meaning in doses.items()]
    return section("Genotypes", said, {"legend": legend}, _table(heads, rows))


def _change(site: Site) -> Part:
    text = f"{site.ref} → {site.alt}"
    short = text if len(text) <= 24 else text[:23] + "…"
    return {"code": {"text": short, "title": text}}


def _genotype(site: Site, sample: int) -> Part:
    alleles = site.alleles[sample]
    known = [allele for allele in alleles if allele is not None]
    dose = "m" if not known else str(min(2, sum(allele > 0 for allele in known)))
    return {"text": site.genotypes[sample], "class": f"g d{dose}"}


def _frequencies(variants: Variants) -> Part:
    points = [
        (site.chrom, site.pos, frequency, f"{site.chrom}:{site.pos} {site.ref}>{site.alt}: {frequency:.2f}")
        for site in variants.sites
        if (frequency := site.alt_frequency) is not None
    ]
    said = "The share of alternative alleles among all known alleles of the cohort, at each kept site."
    if not points:
        return section("Allele frequency", said, {"text": "No site is kept."})
    return section("Allele frequency", said, lollipops(variants.contigs, points))


def _lowest(assays: Sequence[_Assay]) -> tuple[list[_Assay], str]:
    """As many as a page can show: where there are more, those with the least depth."""
    if len(assays) <= SHOWN_ASSAYS:
        return list(assays), ""
    thin = sorted(assays, key=lambda assay: (assay.depth, assay.name))[:SHOWN_ASSAYS]
    return thin, f" Shown are the {SHOWN_ASSAYS} of {len(assays):,} assays with the least depth."


def _rest(all_of_them: int, shown: int, what: str) -> str:
    return f" Shown are the first {shown} of {all_of_them:,} {what}." if all_of_them > shown else ""


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("s" if count != 1 else "")
