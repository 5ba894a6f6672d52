"""Called genotypes beside the expected ones: `python compare.py JOINT.vcf.gz SAMPLESHEET.csv`."""

import csv
import sys
from pathlib import Path

Genotypes = dict[tuple[str, str, str, str], dict[str, str]]
SITE = ("chrom", "pos", "ref", "alt")


def expected() -> Genotypes:
    """Patients' genotypes by site, as the file beside this one gives them."""
    with Path(__file__).with_name("expected_genotypes.tsv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return {tuple(row.pop(name) for name in SITE): row for row in rows}  # type: ignore[misc]


def called(vcf: str, sheet: str) -> Genotypes:
    """Patients' genotypes by site; the VCF names specimens, the sheet says whose they are."""
    import pysam

    with open(sheet, newline="", encoding="utf-8") as stream:
        patients = {row["specimen_id"]: row["patient_id"] for row in csv.DictReader(stream)}
    pysam.set_verbosity(1)  # errors only
    found: Genotypes = {}
    with pysam.VariantFile(vcf) as source:
        for record in source:
            site = (record.chrom, str(record.pos), record.ref or ".", ",".join(record.alts or ()))
            found[site] = {patients.get(name, name): _text(sample["GT"]) for name, sample in record.samples.items()}
    return found


def _text(genotype: tuple[int | None, ...]) -> str:
    return "/".join(sorted("." if allele is None else str(allele) for allele in genotype))


def report(ours: Genotypes, theirs: Genotypes) -> bool:
    """Print one line a site; whether all are equal and there are no others."""
    people = sorted({person for row in (*theirs.values(), *ours.values()) for person in row})
    print(f"{'site':<20}" + "".join(f"{person:>16}" for person in people))
    equal = 0
    for site in sorted({*theirs, *ours}, key=lambda site: (site[0], int(site[1]), site[2:])):
        pairs = [(ours.get(site, {}).get(who, "-"), theirs.get(site, {}).get(who, "-")) for who in people]
        same = all(one == other for one, other in pairs)
        equal += same
        name = f"{site[0]}:{site[1]} {site[2]}>{site[3]}"
        print(f"{name:<20}" + "".join(f"{f'{a}  {b}':>16}" for a, b in pairs) + ("   =" if same else "   DIFFERENT"))
    further = len(set(ours) - set(theirs))
    print("(called, expected; - where there is none)")
    if further:
        print(f"{further} further sites were called")
    print(f"{equal} of {len(theirs)} sites equal")
    return equal == len(theirs) and not further


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(0 if report(called(sys.argv[1], sys.argv[2]), expected()) else 1)
