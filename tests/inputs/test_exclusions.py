"""A file that several assays share has all of them inside: who may not be used bars the others from what reads it."""

from pathlib import Path

import pytest

from ctcore.governance.consent import Statement, set_consent
from ctcore.governance.masking import WITHHELD, mask_of
from ctcore.intake.raw_files import look
from ctcore.intake.register import register
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from ctcore.util.clock import today
from tests.helpers.kit import MORE, STEPS, TOML, add, again, assay, fail, make_all, make_project, reasons, write_sheet
from tests.helpers.kit import ROWS as PLAIN_ROWS
from tests.helpers.purging import revoke
from tests.helpers.sharing import POOL, ROWS, SHARED, shared_project
from tests.helpers.shell import ct

USES = '\n[consent]\nuses = ["research", "commerce"]\nuse = "research"\n[consent.steps]\njoined = "commerce"\n'

PLAIN = """

@step(level="assay", columns=["patient.sex"], outputs={"n": "n.txt"})
def plain(call: Call) -> None:
    call.out("n").write_text("x")
"""


@pytest.fixture
def project(tmp_path: Path, catalog_url: str) -> Project:
    """Everything made."""
    found = shared_project(tmp_path / "toy", STEPS + MORE)
    make_all(found)
    assert reasons(found) == {}
    return found


def excluded(project: Project, step: str) -> list[str]:
    return [one.partition for one in evaluate(project).listed(step) if one.state == "excluded"]


def table(project: Project) -> str:
    return Path(ct("-C", project.root, "path", "joined/all", "table").out.strip()).read_text()


def test_a_revoked_sharer_bars_the_others_and_their_descendants(project: Project) -> None:
    revoke(project, "P2")
    for step in ("counted", "doubled", "tripled"):
        assert excluded(project, step) == ["A2", "A3"], step
    assert evaluate(project).of("merged", "S1").kinds == ("member-removed",)
    assert ct("-C", project.root, "path", "joined/all", "table").code != 0, "the pool is in it"
    make_all(project)
    assert reasons(project) == {} and [line.split()[0] for line in table(project).splitlines()] == ["S1", "S3"]


def test_the_reason_names_the_way_and_nobody_hidden(project: Project) -> None:
    revoke(project, "P2")
    verdict = evaluate(project).of("counted", "A2")
    way = "; register it with a file of its own"
    assert mask_of(project).verdict(verdict).why == f"excluded: shares its reads with {WITHHELD}{way}"
    said = ct("-C", project.root, "why", "counted/A2").out
    assert f"shares its reads with patient P2: consent revoked on {today()} (withdrawal form 12){way}" in said
    assert "shares" not in ct("-C", project.root, "why", "counted/A3").out


def test_a_status_counts_them_by_what_bars_the_sharer(project: Project) -> None:
    revoke(project, "P2")
    said = ct("-C", project.root, "status").err
    assert "excluded from counted, doubled, tripled" in said.replace(", compared", "") and "2 consent revoked" in said
    assert "without what the step needs" not in said


FAMILY = """
from ctcore.step import Call, step

@step(level="patient", files=["vcf"], outputs={"n": "n.txt"})
def trio(call: Call) -> None:
    call.out("n").write_text(call.file("vcf").read_text())

@step(level="assay", files=["reads"], outputs={"n": "n.txt"})
def plain(call: Call) -> None:
    call.out("n").write_text(call.file("reads").read_text())

@step(level="assay", inputs={"t": "trio", "p": "plain"}, outputs={"n": "n.txt"})
def phased(call: Call) -> None:
    call.out("n").write_text("x")
"""


def test_a_familys_file_bars_what_is_below_its_patients(tmp_path: Path) -> None:
    (tmp_path / "family.vcf").write_text("father child\n")
    toml = TOML.replace("[levels.assay]\n", "[levels.patient.files]\nvcf = { shared = true }\n\n[levels.assay]\n")
    project = make_project(tmp_path, PLAIN_ROWS, FAMILY, toml)
    (project.root / "family.csv").write_text("patient_id,vcf\nP1,family.vcf\nP2,family.vcf\n")
    register(project, project.root / "family.csv")
    assert set(make_all(project).values()) == {"made"}
    revoke(project, "P1")
    assert excluded(project, "trio") == ["P1", "P2"] and excluded(project, "phased") == ["A1", "A2", "A3"]
    assert excluded(project, "plain") == ["A1", "A2"]
    assert "shares its vcf with patient P1: consent revoked" in ct("-C", project.root, "why", "phased/A3").out


def test_a_sharer_that_failed_quality_bars_the_others_too(project: Project) -> None:
    fail(project, "A3")
    assert excluded(project, "counted") == ["A2", "A3"]
    said = ct("-C", project.root, "why", "counted/A2").out
    assert "shares its reads with assay A3: qc_fail" in said


def test_what_does_not_read_the_file_is_barred_by_nobody(tmp_path: Path) -> None:
    project = shared_project(tmp_path / "toy", STEPS + PLAIN)
    revoke(project, "P2")
    assert excluded(project, "counted") == ["A2", "A3"] and excluded(project, "plain") == ["A3"]


def test_a_limited_consent_of_a_sharer_holds_for_the_others(tmp_path: Path) -> None:
    project = shared_project(tmp_path / "toy", toml=SHARED + USES)
    make_all(project)
    set_consent(project, ["P2"], Statement("limited", ("research",), form="form 4"))
    project = again(project)
    assert excluded(project, "counted") == [] and excluded(project, "merged") == []
    assert evaluate(project).of("joined", "all").kinds == ("member-removed",)
    make_all(project)
    assert [line.split()[0] for line in table(project).splitlines()] == ["S3"], "S1 is made of the pool too"


def test_the_impact_of_a_sharer_is_in_the_others_too(project: Project) -> None:
    assert "assay\tcounted\t2\t" in ct("-C", project.root, "impact", "P2").out


def test_a_changed_shared_file_makes_all_of_them_stale(project: Project) -> None:
    (project.root / POOL).write_text("other reads\n")
    assert sorted(one.split()[0] for one in look(project).changes) == ["assay/A2", "assay/A3"]
    found = reasons(project)
    assert {name for name, kinds in found.items() if "input" in kinds} == {"counted/A2", "counted/A3"}
    make_all(project)
    assert reasons(project) == {}


def test_one_more_who_shares_makes_nobody_stale(project: Project) -> None:
    """A pool that grows each week would have all of its users made again each week."""
    add(project, [*ROWS, assay("P3", "S3", "A5", reads=POOL)])
    assert {name for name in reasons(project) if name.endswith(("A2", "A3"))} == set()
    make_all(project)
    revoke(project, "P3")
    assert excluded(project, "counted") == ["A2", "A3", "A4", "A5"]


def test_a_file_of_its_own_frees_an_assay(project: Project) -> None:
    revoke(project, "P2")
    (project.root / "reads" / "A2.txt").write_text("reads of A2 alone\n")
    register(project, write_sheet(project.root, [assay("P1", "S1", "A2")]))
    assert excluded(project, "counted") == ["A3"] and reasons(project)["counted/A2"] == ["input"]
    assert ct("-C", project.root, "path", "counted/A2", "n").code != 0, "the pool is in what there is"
    make_all(project)
    assert reasons(project) == {} and excluded(project, "counted") == ["A3"]
    assert Path(ct("-C", project.root, "path", "counted/A2", "n").out.strip()).is_file()


def test_who_came_to_share_a_file_is_in_what_was_made_before(project: Project) -> None:
    """No edge names them, and the file that has them inside is another one by now."""
    add(project, [*ROWS, assay("P3", "S3", "A5", reads=POOL)])
    (project.root / "reads" / "A2.txt").write_text("reads of A2 alone\n")
    register(project, write_sheet(project.root, [assay("P1", "S1", "A2")]))
    revoke(project, "P3")
    project = again(project)
    assert excluded(project, "counted") == ["A3", "A4", "A5"]
    for node, output in (("counted/A2", "n"), ("doubled/A2", "n"), ("merged/S1", "n"), ("joined/all", "table")):
        assert ct("-C", project.root, "path", node, output).code != 0, f"the pool is in {node}"
    assert Path(ct("-C", project.root, "path", "counted/A1", "n").out.strip()).is_file()
    make_all(project)
    assert Path(ct("-C", project.root, "path", "doubled/A2", "n").out.strip()).is_file()
