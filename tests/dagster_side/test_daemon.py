"""With the daemon running: change the world, and exactly what it touches is made again. The real cohort."""

import gzip
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctcore.project import Project
from tests.helpers.shell import shell
from tests.helpers.world import World, daemon, three_people

pytestmark = [pytest.mark.daemon, pytest.mark.xdist_group("daemon")]

COHORT = {"coverage_matrix/all", "joint_variants/all", "filtered_variants/all", "cohort_report/all"}
ASSAYS = (
    "HG00100-3815246",
    "HG00100-6503965",
    "HG00100-g1k-sc-HG00100-A",
    "HG00101-HG00101_I_bc_pelib_1018",
    "HG00102-HG00102_I_bc_pelib_1019",
)


def of_assay(assay: str) -> set[str]:
    return {f"reads_qc/{assay}", f"aligned_reads/{assay}", f"alignment_qc/{assay}"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    project = three_people(tmp_path_factory.mktemp("daemon") / "cohort")
    with daemon(project) as running:
        everything = {node for assay in ASSAYS for node in of_assay(assay)} | COHORT
        people = {f"merged_reads/{person}-LCL" for person in ("HG00100", "HG00101", "HG00102")}
        assert running.settled(*everything, *people) == everything | people
        yield running


def test_replaced_reads_make_their_chain_again(world: World) -> None:
    assay = ASSAYS[3]
    for mate in ("R1", "R2"):
        path = world.root / f"reads/{assay}_{mate}.fastq.gz"
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        path.write_bytes(gzip.compress(b"".join(lines[: len(lines) // 8 * 4])))
    expected, before = of_assay(assay) | {"merged_reads/HG00101-LCL"} | COHORT, len(world.runs())
    assert world.settled(*expected) == expected
    runs = [run for run in world.runs()[before:] if "assay" not in run]
    assert sorted(step for run in runs for step in run) == sorted({node.partition("/")[0] for node in expected})
    assert ["aligned_reads", "alignment_qc", "reads_qc"] in runs, "steps that wait for a run alone follow in it"


def test_the_same_reads_compressed_again_stop_at_the_alignment(world: World) -> None:
    assay = ASSAYS[4]
    before = world.data_versions("aligned_reads")
    path = world.root / f"reads/{assay}_R1.fastq.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=1))
    expected = {f"reads_qc/{assay}", f"aligned_reads/{assay}"}
    assert world.settled(*expected) == expected
    assert world.data_versions("aligned_reads") == before


def test_a_new_version_of_the_reference_reaches_what_reads_it(world: World) -> None:
    """The sequence is the same, so what reads it gives the same content, and nothing follows."""
    toml = world.root / "ct.toml"
    toml.write_text(toml.read_text().replace('version = "GRCh37', 'version = "GRCh37.p13'))
    expected = {f"aligned_reads/{assay}" for assay in ASSAYS} | {"joint_variants/all"}
    assert world.settled(*expected) == expected


def test_another_reference_reaches_everything_that_it_changes(world: World) -> None:
    """One letter is another one: the reads that lie on it align otherwise, and the rest stays."""
    path = world.root / "chr17_head.fa"
    before = world.data_versions("aligned_reads")
    header, *lines = path.read_text().splitlines(keepends=True)
    lines[20] = lines[20][:30] + ("A" if lines[20][30] != "A" else "C") + lines[20][31:]
    path.write_text(header + "".join(lines))
    always = {f"aligned_reads/{assay}" for assay in ASSAYS} | {"joint_variants/all"}
    made = world.settled(*always)
    after = world.data_versions("aligned_reads")
    changed = {assay for assay in ASSAYS if before[assay] != after[assay]}
    merged = {f"merged_reads/{assay.partition('-')[0]}-LCL" for assay in changed}
    assert made - COHORT == always - COHORT | merged | {f"alignment_qc/{assay}" for assay in changed}


def test_a_fourth_person_makes_her_own_steps_and_the_cohort(world: World) -> None:
    for mate in ("R1", "R2"):
        shutil.copy(world.root / f"reads/{ASSAYS[4]}_{mate}.fastq.gz", world.root / f"reads/HG00103-x_{mate}.fastq.gz")
    with (world.root / "samplesheet.csv").open("a") as stream:
        files = "reads/HG00103-x_R1.fastq.gz,reads/HG00103-x_R2.fastq.gz"
        stream.write(f"HG00103,M,GBR,HG00103-LCL,lymphoblastoid,HG00103-x,WGS,x,MPIMG,{files}\n")
    expected = of_assay("HG00103-x") | {"merged_reads/HG00103-LCL"} | COHORT
    assert world.settled(*expected) == expected


def test_deleted_and_flipped_bytes_are_found_and_made_again(world: World) -> None:
    deleted = _output(world.root, f"reads_qc/{ASSAYS[0]}")
    flipped = _output(world.root, "merged_reads/HG00101-LCL")
    deleted.parent.chmod(0o755)
    deleted.unlink()
    flipped.chmod(0o644)
    seen = flipped.stat()
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    said = shell("-C", world.root, "verify").out
    expected = {f"reads_qc/{ASSAYS[0]}", "merged_reads/HG00101-LCL"}
    assert world.settled(*expected) == expected
    assert said == "" or (deleted.name in said and flipped.name in said)  # the sensor may have been the first
    assert deleted.is_file() and stat.S_IMODE(flipped.stat().st_mode) == stat.S_IMODE(seen.st_mode) & 0o555
    assert shell("-C", world.root, "verify").code == 0


def test_a_comment_is_not_a_change_of_code(world: World) -> None:
    path = world.root / "ct_assets/steps/coverage.py"
    path.write_text(path.read_text() + "\n# A remark.\n")
    assert world.settled() == set()


def test_changed_code_makes_its_step_and_what_it_changes(world: World) -> None:
    path = world.root / "ct_assets/steps/coverage.py"
    text = path.read_text()
    path.write_text(
        re.sub(r"(def coverage_matrix\(.*\n(?:    \"\"\".*?\"\"\"\n)?)", r"\1    unused = 1\n", text, count=1)
    )
    assert path.read_text() != text
    assert world.settled("coverage_matrix/all") == {"coverage_matrix/all"}


def _output(root: Path, node: str) -> Path:
    """The first output of a node's current artifact."""
    folder = Path(shell("-C", root, "path", node).out.strip())
    return sorted(path for path in folder.iterdir() if path.name not in ("MANIFEST.b3", "ct.json"))[0]


def test_every_change_was_asked_for_once(world: World) -> None:
    """No run failed, and Dagster knows the data version that the ledger has, for every node."""
    import dagster as dg
    from sqlalchemy import select

    from ctcore.catalog.tables import artifact

    with dg.DagsterInstance.get() as instance:
        failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    assert failed == []
    with Project.find(world.root).catalog.read() as connection:
        for asset in ("aligned_reads", "merged_reads", "joint_variants", "cohort_report"):
            rows = connection.execute(
                select(artifact.c.partition, artifact.c.data_version).where(artifact.c.asset == asset)
            )
            assert {row.partition: row.data_version for row in rows} == world.data_versions(asset)
