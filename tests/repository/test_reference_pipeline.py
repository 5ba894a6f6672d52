"""The reference pipeline on three real people: the known genotypes, and the same bytes wherever it runs."""

import csv
import gzip
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pysam
import pytest

from ct_assets.steps.alignment import AlignmentParams, AlignmentQcParams, aligned_reads, alignment_qc
from ct_assets.steps.coverage import coverage_matrix
from ct_assets.steps.reads import reads_qc
from ct_assets.steps.report import cohort_report
from ct_assets.steps.specimens import merged_reads
from ct_assets.steps.variants import CallingParams, FilterParams, filtered_variants, joint_variants
from ctcore.errors import InputError, StepError
from ctcore.step import Call, Source, Step

EXAMPLE = Path(__file__).parents[2] / "examples" / "three_people"
GENOME = EXAMPLE / "chr17_head.fa"


@dataclass
class Chain:
    """Runs steps by hand in one folder, as the engine does: a private folder a node, outputs by name."""

    home: Path
    cpus: int = 1
    genome: Path = GENOME
    made: dict[str, dict[str, Source]] = field(default_factory=dict)
    facts: dict[str, dict[str, Mapping[str, Any]]] = field(default_factory=dict)

    def run(self, function: Callable[[Call], Any], entity: str, **given: Any) -> Source:
        declared: Step = function.ct_step  # type: ignore[attr-defined]
        folder = self.home / declared.name / entity
        folder.mkdir(parents=True)
        call = Call(
            entity=entity,
            level=declared.level,
            folder=folder,
            outputs={name: output.file for name, output in declared.outputs.items()},
            references=dict.fromkeys(declared.references, self.genome),
            params=declared.params() if declared.params else None,
            cpus=self.cpus,
        )
        facts = function(replace(call, **_told(entity, **given)))
        shutil.rmtree(folder / ".scratch", ignore_errors=True)
        assert {path.name for path in folder.iterdir()} == set(call.outputs.values())
        for name, output in declared.outputs.items():
            assert output.contract is not None
            assert output.contract.problems(call.out(name)) == []
        source = Source(entity, {name: call.out(name) for name in call.outputs})
        self.made.setdefault(declared.name, {})[entity] = source
        self.facts.setdefault(declared.name, {})[entity] = dict(facts)
        return source

    def assay(self, row: Mapping[str, str]) -> None:
        """Everything of one row of the sheet."""
        name, files = row["assay_id"], {role: Path(row[role]) for role in ("fastq_1", "fastq_2")}
        qc = self.run(reads_qc, name, files=files)
        columns = {(column, name): row[column.replace(".", "_")] for column in ("assay.id", "specimen.id")}
        aligned = self.run(aligned_reads, name, files=files, inputs={"qc": [qc]}, columns=columns)
        self.run(alignment_qc, name, inputs={"aligned": [aligned]})

    def cohort(self, rows: Sequence[Mapping[str, str]]) -> Source:
        """Specimens and cohort steps of these rows, which may come in any order."""
        for specimen in dict.fromkeys(row["specimen_id"] for row in rows):
            own = [self.made["aligned_reads"][r["assay_id"]] for r in rows if r["specimen_id"] == specimen]
            ids = {("specimen.id", specimen): specimen}
            self.run(merged_reads, specimen, inputs={"aligned": own}, columns=ids)
        columns = {
            (column, row["assay_id"]): row[column.replace(".", "_")]
            for row in rows
            for column in ("patient.id", "specimen.id", "assay.id")
        }
        quality = {
            name: [self.made[step][row["assay_id"]] for row in rows]
            for name, step in (("alignment", "alignment_qc"), ("reads", "reads_qc"))
        }
        merged = list(self.made["merged_reads"].values())
        joint = self.run(joint_variants, "all", inputs={"merged": merged})
        filtered = self.run(filtered_variants, "all", inputs={"joint": [joint]})
        alignment = {"alignment": quality["alignment"]}
        coverage = self.run(coverage_matrix, "all", inputs=alignment, columns=columns)
        sources = {"variants": [filtered], "coverage": [coverage], **quality}
        return self.run(cohort_report, "all", inputs=sources, columns=columns)

    def digests(self) -> dict[str, str]:
        return {
            str(path.relative_to(self.home)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.home.rglob("*"))
            if path.is_file()
        }


def _told(entity: str, columns: Mapping[tuple[str, str], str] | None = None, **given: Any) -> dict[str, Any]:
    """Values by column and ID, given to whom they belong: the node, or a source."""

    def of(who: str) -> dict[str, str]:
        return {column: value for (column, whose), value in (columns or {}).items() if whose == who}

    inputs = given.pop("inputs", {})
    given["inputs"] = {name: [replace(one, columns=of(one.entity)) for one in some] for name, some in inputs.items()}
    return given | {"columns": of(entity)}


def sheet() -> list[dict[str, str]]:
    with (EXAMPLE / "samplesheet.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [row | {role: str(EXAMPLE / row[role]) for role in ("fastq_1", "fastq_2")} for row in rows]


def whole(home: Path, rows: Sequence[Mapping[str, str]], **given: Any) -> Chain:
    chain = Chain(home, **given)
    for row in rows:
        chain.assay(row)
    chain.cohort(rows)
    return chain


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return whole(tmp_path_factory.mktemp("first") / "chain", sheet())


def compare(vcf: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, EXAMPLE / "compare.py", vcf, EXAMPLE / "samplesheet.csv"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_known_sites_are_called_with_their_genotypes(chain: Chain) -> None:
    done = compare(chain.made["joint_variants"]["all"]["vcf"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "11 of 11 sites equal"
    assert chain.facts["joint_variants"]["all"] == {"specimens": 3, "sites": 11, "snvs": 10, "indels": 1}


def test_compare_refuses_a_vcf_that_lacks_a_site(chain: Chain, tmp_path: Path) -> None:
    joint = chain.made["joint_variants"]["all"]
    strict = Chain(tmp_path).run(
        filtered_variants, "all", inputs={"joint": [joint]}, params=FilterParams(min_qual=100.0)
    )
    done = compare(strict["vcf"])
    assert done.returncode == 1
    assert "DIFFERENT" in done.stdout and done.stdout.splitlines()[-1] != "11 of 11 sites equal"


def test_the_genotype_table_says_what_the_vcf_says(chain: Chain) -> None:
    text = chain.made["joint_variants"]["all"]["genotypes"].read_text().splitlines()
    assert text[0].split("\t") == ["chrom", "pos", "ref", "alt", "HG00100-LCL", "HG00101-LCL", "HG00102-LCL"]
    assert text[1].split("\t") == ["17", "302", "T", "TA", "0/1", "0/1", "1/1"]


def test_counts_of_reads_are_those_of_the_published_data(chain: Chain) -> None:
    pairs = [facts["read_pairs"] for facts in chain.facts["reads_qc"].values()]
    assert pairs == [115, 110, 34, 110, 113]
    assert chain.facts["merged_reads"]["HG00100-LCL"] == {"assays": 3, "reads": 2 * (115 + 110 + 34)}


def test_folder_threads_and_order_change_no_byte(chain: Chain, tmp_path: Path) -> None:
    moved = tmp_path / "some where else" / "raw"
    shutil.copytree(EXAMPLE, moved)
    rows = [r | {f: str(moved / "reads" / Path(r[f]).name) for f in ("fastq_1", "fastq_2")} for r in sheet()]
    again = whole(tmp_path / "b", rows[::-1], cpus=4, genome=moved / "chr17_head.fa")
    assert again.digests() == chain.digests()


def test_recompressed_reads_give_the_same_bytes(chain: Chain, tmp_path: Path) -> None:
    row = sheet()[0]
    for role in ("fastq_1", "fastq_2"):
        text = gzip.decompress(Path(row[role]).read_bytes())
        fast = gzip.compress(text, compresslevel=1)
        assert fast != Path(row[role]).read_bytes()
        row[role] = str(tmp_path / f"{role}.gz")
        Path(row[role]).write_bytes(fast)
    again = Chain(tmp_path / "c")
    again.assay(row)
    first = chain.digests()
    assert again.digests() == {name: first[name] for name in again.digests()}


def test_threads_do_not_change_reads_at_equal_positions(tmp_path: Path) -> None:
    row = many_times(sheet()[0], 60, tmp_path)
    alone, together = Chain(tmp_path / "1", cpus=1), Chain(tmp_path / "4", cpus=4)
    alone.assay(row)
    together.assay(row)
    assert alone.facts["aligned_reads"][row["assay_id"]] == {"reads": 60 * 230}
    assert alone.digests() == together.digests()


def many_times(row: Mapping[str, str], times: int, folder: Path) -> dict[str, str]:
    """The same reads again and again under other names, so that many lie at the same place."""
    made = dict(row)
    for role in ("fastq_1", "fastq_2"):
        lines = gzip.decompress(Path(row[role]).read_bytes()).splitlines(keepends=True)
        copies = [
            b"@%d." % copy + line[1:] if number % 4 == 0 else line
            for copy in range(times)
            for number, line in enumerate(lines)
        ]
        made[role] = str(folder / f"{role}.gz")
        Path(made[role]).write_bytes(gzip.compress(b"".join(copies)))
    return made


def test_nothing_is_written_beside_a_reference_without_an_index(chain: Chain, tmp_path: Path) -> None:
    bare = tmp_path / "reference"
    bare.mkdir()
    shutil.copyfile(GENOME, bare / "genome.fa")
    merged = list(chain.made["merged_reads"].values())
    again = Chain(tmp_path / "d", genome=bare / "genome.fa").run(joint_variants, "all", inputs={"merged": merged})
    assert [path.name for path in bare.iterdir()] == ["genome.fa"]
    assert again["vcf"].read_bytes() == chain.made["joint_variants"]["all"]["vcf"].read_bytes()


def test_no_output_holds_a_path_a_command_or_a_version(chain: Chain) -> None:
    for name in ("aligned_reads", "merged_reads"):
        for source in chain.made[name].values():
            with pysam.AlignmentFile(str(source["bam"])) as bam:
                assert set(bam.header.to_dict()) == {"HD", "SQ", "RG"}
    for name in ("joint_variants", "filtered_variants"):
        text = gzip.decompress(chain.made[name]["all"]["vcf"].read_bytes())
        assert b"##contig" in text
        assert str(chain.home).encode() not in text and str(EXAMPLE).encode() not in text
        assert b"##bcftools" not in text and b"##reference" not in text


def test_each_read_keeps_the_read_group_of_its_assay(chain: Chain) -> None:
    with pysam.AlignmentFile(str(chain.made["merged_reads"]["HG00100-LCL"]["bam"])) as bam:
        groups = {group["ID"]: group["SM"] for group in bam.header.to_dict()["RG"]}
        seen = {str(read.get_tag("RG")) for read in bam}
    assert seen == set(groups) == {r["assay_id"] for r in sheet() if r["specimen_id"] == "HG00100-LCL"}
    assert set(groups.values()) == {"HG00100-LCL"}


def test_reads_of_another_specimen_are_never_merged_in(chain: Chain, tmp_path: Path) -> None:
    aligned = chain.made["aligned_reads"]
    strangers = [aligned["HG00100-3815246"], aligned["HG00101-HG00101_I_bc_pelib_1018"]]
    columns = {("specimen.id", "HG00100-LCL"): "HG00100-LCL"}
    with pytest.raises(InputError, match=r"HG00101-HG00101_I_bc_pelib_1018: its reads are of HG00101-LCL"):
        Chain(tmp_path).run(merged_reads, "HG00100-LCL", inputs={"aligned": strangers}, columns=columns)


def test_alignment_refuses_reads_that_were_not_counted(chain: Chain, tmp_path: Path) -> None:
    one, other = sheet()[0], sheet()[1]
    files = {role: Path(other[role]) for role in ("fastq_1", "fastq_2")}
    columns = {(c, one["assay_id"]): one[c.replace(".", "_")] for c in ("assay.id", "specimen.id")}
    qc = chain.made["reads_qc"][one["assay_id"]]
    with pytest.raises(InputError, match="minimap2 read 220 of 230 reads"):
        Chain(tmp_path).run(aligned_reads, one["assay_id"], files=files, inputs={"qc": [qc]}, columns=columns)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (AlignmentParams(preset="nonsense"), "unknown preset 'nonsense'"),
        (AlignmentParams(extra=("-oelsewhere",)), "are set by the step"),
    ],
)
def test_minimap2_arguments_that_cannot_be_are_refused(
    chain: Chain, tmp_path: Path, params: AlignmentParams, said: str
) -> None:
    row = sheet()[0]
    files = {role: Path(row[role]) for role in ("fastq_1", "fastq_2")}
    columns = {(c, row["assay_id"]): row[c.replace(".", "_")] for c in ("assay.id", "specimen.id")}
    inputs = {"qc": [chain.made["reads_qc"][row["assay_id"]]]}
    with pytest.raises(StepError, match=said):
        Chain(tmp_path).run(aligned_reads, row["assay_id"], files=files, inputs=inputs, columns=columns, params=params)


def test_filter_parameters_decide_which_sites_are_kept(chain: Chain, tmp_path: Path) -> None:
    joint = [chain.made["joint_variants"]["all"]]
    counts = {}
    for qual in (0.0, 150.0, 1e9):
        run = Chain(tmp_path / str(qual))
        run.run(filtered_variants, "all", inputs={"joint": joint}, params=FilterParams(min_qual=qual))
        counts[qual] = run.facts["filtered_variants"]["all"]["kept"]
    assert counts[0.0] == 11 > counts[150.0] > counts[1e9] == 0


def test_calling_parameters_reach_bcftools(chain: Chain, tmp_path: Path) -> None:
    merged = list(chain.made["merged_reads"].values())
    run = Chain(tmp_path)
    run.run(joint_variants, "all", inputs={"merged": merged}, params=CallingParams(min_base_quality=60))
    assert run.facts["joint_variants"]["all"]["sites"] < 11


def test_coverage_agrees_with_a_count_of_bases_by_hand(chain: Chain) -> None:
    name = sheet()[0]["assay_id"]
    with pysam.AlignmentFile(str(chain.made["aligned_reads"][name]["bam"])) as bam:
        blocks = [block for read in bam for block in read.get_blocks()]
    depths = [sum(start <= place < end for start, end in blocks) for place in range(4200)]
    facts = chain.facts["alignment_qc"][name]
    assert facts["mean_depth"] == pytest.approx(sum(depths) / 4200)
    assert facts["breadth_1x"] == pytest.approx(sum(depth > 0 for depth in depths) / 4200)


def test_pictures_do_not_depend_on_the_settings_of_who_runs_it(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "red")
    monkeypatch.setitem(matplotlib.rcParams, "savefig.facecolor", "red")
    row = sheet()[0]
    files = {role: Path(row[role]) for role in ("fastq_1", "fastq_2")}
    again = Chain(tmp_path).run(reads_qc, row["assay_id"], files=files)
    assert again["plot"].read_bytes() == chain.made["reads_qc"][row["assay_id"]]["plot"].read_bytes()


def test_steps_import_no_heavy_library_before_they_run() -> None:
    code = (
        "import sys, ct_assets.steps.reads, ct_assets.steps.alignment, ct_assets.steps.specimens, "
        "ct_assets.steps.variants, ct_assets.steps.coverage, ct_assets.steps.report; "
        "print(sorted({'dagster','pysam','numpy','pandas','matplotlib','pyminimap2'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def report_of(chain: Chain, home: Path, rows: Sequence[Mapping[str, str]], **other: Source) -> str:
    """The page for these rows, made from the chain's artifacts; `other` replaces cohort inputs."""
    sources = {
        "variants": [other.get("variants", chain.made["filtered_variants"]["all"])],
        "coverage": [other.get("coverage", chain.made["coverage_matrix"]["all"])],
        "alignment": [replace(chain.made["alignment_qc"][row["made"]], entity=row["assay_id"]) for row in rows],
        "reads": [replace(chain.made["reads_qc"][row["made"]], entity=row["assay_id"]) for row in rows],
    }
    columns = {
        (column, row["assay_id"]): row[column.replace(".", "_")]
        for row in rows
        for column in ("patient.id", "specimen.id", "assay.id")
    }
    return Chain(home).run(cohort_report, "all", inputs=sources, columns=columns)["page"].read_text()


def test_the_report_asks_nothing_of_the_network(chain: Chain) -> None:
    text = chain.made["cohort_report"]["all"]["page"].read_text()
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    outside = re.findall(r"https?:|<script|<iframe|@import|url\(|src=|\bon\w+=", text)
    assert outside == []
    assert re.findall(r'href="([^"]*)"', text) == ["data:,"]


def test_the_report_shows_the_numbers_that_were_measured(chain: Chain) -> None:
    text = re.sub(r"<[^>]+>", "|", chain.made["cohort_report"]["all"]["page"].read_text())
    text = re.sub(r"\|+", "|", text)
    assert "|482|read pairs|" in text
    assert "|10|variant sites (9 SNV, 1 indel)|" in text
    assert "|17:302|T → TA|519|0/1|0/1|1/1|" in text
    assert "10 of 11 jointly called sites are kept. Of low quality: 1;" in text


def test_names_that_are_markup_stay_text_in_the_report(chain: Chain, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>\"'&"
    rows = [row | {"made": row["assay_id"], "patient_id": evil, "specimen_id": evil} for row in sheet()]
    text = report_of(chain, tmp_path, rows)
    assert "<img" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;&#34;&#39;&amp;" in text


def test_the_report_of_many_assays_says_which_it_shows(chain: Chain, tmp_path: Path) -> None:
    made = sheet()
    rows = [made[n % 5] | {"made": made[n % 5]["assay_id"], "assay_id": f"A{n:03}"} for n in range(100)]
    sources = [replace(chain.made["alignment_qc"][row["made"]], entity=row["assay_id"]) for row in rows]
    columns = {
        (c, r["assay_id"]): r[c.replace(".", "_")] for r in rows for c in ("patient.id", "specimen.id", "assay.id")
    }
    coverage = Chain(tmp_path / "m").run(coverage_matrix, "all", inputs={"alignment": sources}, columns=columns)
    text = report_of(chain, tmp_path, rows, coverage=coverage)
    assert text.count("Shown are the 60 of 100 assays with the least depth.") == 2
    thin = [row["assay_id"] for row in rows if row["made"] == "HG00100-g1k-sc-HG00100-A"]
    assert len(thin) == 20 and all(name in text for name in thin)


def test_the_report_of_no_variants_is_still_a_report(chain: Chain, tmp_path: Path) -> None:
    joint = [chain.made["joint_variants"]["all"]]
    none = Chain(tmp_path).run(filtered_variants, "all", inputs={"joint": joint}, params=FilterParams(min_qual=1e9))
    rows = [row | {"made": row["assay_id"]} for row in sheet()]
    assert "No site is kept." in report_of(chain, tmp_path, rows, variants=none)


def test_assays_cut_into_different_bins_are_refused(chain: Chain, tmp_path: Path) -> None:
    one, other = sheet()[0], sheet()[1]
    aligned = chain.made["aligned_reads"][other["assay_id"]]
    finer = Chain(tmp_path).run(
        alignment_qc, other["assay_id"], inputs={"aligned": [aligned]}, params=AlignmentQcParams(bins=168)
    )
    columns = {
        (c, r["assay_id"]): r[c.replace(".", "_")]
        for r in (one, other)
        for c in ("patient.id", "specimen.id", "assay.id")
    }
    sources = [chain.made["alignment_qc"][one["assay_id"]], finer]
    with pytest.raises(InputError, match="HG00100-3815246 and HG00100-6503965 are cut into different bins"):
        Chain(tmp_path / "m").run(coverage_matrix, "all", inputs={"alignment": sources}, columns=columns)


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04 not a genome"])
def test_a_reference_that_is_not_fasta_is_refused(chain: Chain, tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "genome.fa").write_bytes(raw)
    merged = list(chain.made["merged_reads"].values())
    with pytest.raises(InputError, match=r"reference genome: genome\.fa is not FASTA"):
        Chain(tmp_path / "j", genome=tmp_path / "genome.fa").run(joint_variants, "all", inputs={"merged": merged})
