"""Whoever is inside what was made elsewhere has the same rights there: left out, withheld, and purged."""

from pathlib import Path

from ctcore.catalog.tables import materialization
from ctcore.deletion.proof import purge_findings
from ctcore.deletion.purge import remove
from ctcore.execution.adopt import Story
from ctcore.execution.named_inputs import NamedInputs
from ctcore.governance.consent import Statement, set_consent
from ctcore.lineage.explain import why
from ctcore.staleness.verdicts import evaluate
from tests.helpers.adopted import NODE, project_with, take, vcf
from tests.helpers.kit import again, make_all
from tests.helpers.shell import ct

REVOKED = Statement("revoked", form="form 12")


def test_a_revoked_member_makes_an_adopted_call_withheld(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    take(project, vcf(tmp_path))
    assert ct("-C", project.root, "path", "joint/all", "vcf").code == 0
    set_consent(project, ["P2"], REVOKED)
    project = again(project)
    (one,) = evaluate(project).of(*NODE).reasons
    assert one.kind == "member-removed" and one.node == ("counted", "A3")
    said = ct("-C", project.root, "path", "joint/all", "vcf")
    assert said.code != 0 and not said.out and "`ct adopt joint/all …`" in said.err
    assert make_all(project) == {"joined/all": "made", "report/all": "blocked"}


def test_a_purge_removes_what_was_made_elsewhere(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    take(project, vcf(tmp_path))
    make_all(again(project))
    made = why(project, NODE).made
    assert made is not None and Path(made["path"]).is_dir()
    set_consent(project, ["P2"], REVOKED)
    planned = ct("-C", project.root, "purge", "P2")
    assert "made elsewhere: `ct adopt joint/all …`" in planned.out
    remove(project, "P2", "asked for", "P2")
    assert not Path(made["path"]).exists()
    project = again(project)
    assert not purge_findings(project)
    assert evaluate(project).of(*NODE).state == "missing"
    take(project, vcf(tmp_path, "without P2\n"))
    assert evaluate(project).of(*NODE).state == "fresh"
    with project.catalog.read() as connection:
        rows = connection.execute(materialization.select().where(materialization.c.asset == "joint")).all()
    assert len(rows) == 2


def test_a_purge_spares_an_adopted_call_without_the_person(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    take(project, vcf(tmp_path), Story("us", named=NamedInputs(members=["patient/P1"])))
    made = why(project, NODE).made
    set_consent(project, ["P2"], REVOKED)
    remove(project, "P2", "asked for", "P2")
    assert made is not None and Path(made["path"]).is_dir()
    assert evaluate(again(project)).of(*NODE).state == "fresh"
