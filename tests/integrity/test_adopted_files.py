"""What was made elsewhere is read, found damaged, and found again like everything else; only the way out is its own."""

from pathlib import Path

from ctcore.catalog.tables import materialization
from ctcore.integrity.catalog_check import disagreements
from ctcore.integrity.verify import verify
from ctcore.lineage.explain import why
from ctcore.staleness.verdicts import evaluate
from tests.helpers.adopted import NODE, project_with, take, vcf
from tests.helpers.kit import again, change, make_all
from tests.helpers.shell import ct


def test_damaged_bytes_are_found_and_adopted_again(tmp_path: Path) -> None:
    project, path = project_with(tmp_path), vcf(tmp_path)
    take(project, path)
    make_all(project)
    made = why(project, NODE).made
    assert made is not None
    change(Path(made["path"]) / "joint.vcf")
    said = ct("-C", project.root, "verify")
    assert said.code == 3 and "joint/all is made elsewhere: `ct adopt joint/all …` takes it again" in said.err
    assert "`ct run` makes them again" not in said.err
    project = again(project)
    assert evaluate(project).of(*NODE).kinds == ("bytes",)
    take(project, path)
    assert evaluate(again(project)).of(*NODE).state == "fresh"
    assert not verify(again(project)).findings


def test_a_lost_catalog_finds_what_was_adopted(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    take(project, vcf(tmp_path))
    before = why(project, NODE).made
    (project.root / "catalog.db").unlink()
    for left in ("catalog.db-wal", "catalog.db-shm"):
        (project.root / left).unlink(missing_ok=True)
    assert ct("-C", project.root, "recover").code == 0
    project = again(project)
    assert not list(disagreements(project))
    assert evaluate(project).of(*NODE).state == "fresh"
    after = why(project, NODE).made
    assert before and after and before["data_version"] == after["data_version"] and before["facts"] == after["facts"]


def test_the_ledger_agrees_with_its_events(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    take(project, vcf(tmp_path))
    assert not list(disagreements(project))
    with project.catalog.read() as connection:
        (row,) = connection.execute(materialization.select().where(materialization.c.asset == "joint")).all()
    assert row.reason == "made elsewhere by GLnexus at the centre"
