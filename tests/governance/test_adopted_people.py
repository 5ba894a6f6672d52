"""Whoever is inside what was made elsewhere has the same rights there: left out, withheld, and purged."""

from pathlib import Path

import pytest

from ctcore.catalog.tables import materialization
from ctcore.deletion.proof import purge_findings
from ctcore.deletion.purge import remove
from ctcore.errors import Usage
from ctcore.execution.adopt import Story
from ctcore.execution.named_inputs import NamedInputs
from ctcore.governance.consent import Statement, set_consent
from ctcore.lineage.explain import why
from ctcore.staleness.verdicts import evaluate
from tests.helpers.adopted import NODE, project_with, take, vcf
from tests.helpers.kit import again, make_all
from tests.helpers.shell import ct

P1_ALONE = Story("us", named=NamedInputs(members=["patient/P1"]))
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


def test_a_withheld_file_is_not_free_when_adopted_again(tmp_path: Path) -> None:
    """Its own refusal names `ct adopt`. The same file, said to be of those who are left, has the others inside."""
    project = project_with(tmp_path)
    take(project, vcf(tmp_path))
    make_all(again(project))
    set_consent(project, ["P2"], REVOKED)
    for story in (Story("us"), P1_ALONE):
        with pytest.raises(Usage, match="as made from other inputs"):
            take(again(project), vcf(tmp_path), story)
    assert ct("-C", project.root, "path", "report/all").code != 0
    take(again(project), vcf(tmp_path, "without P2\n"))
    assert ct("-C", project.root, "path", "joint/all").code == 0


def test_fewer_members_are_not_claimed_for_the_same_bytes(tmp_path: Path) -> None:
    """Nor more: the making of before would count as one without them."""
    for number, (first, then) in enumerate(((Story("us"), P1_ALONE), (P1_ALONE, Story("us")))):
        project = project_with(tmp_path / str(number))
        take(project, vcf(tmp_path), first)
        with pytest.raises(Usage, match="as made from other inputs"):
            take(project, vcf(tmp_path), then)


def test_bytes_of_a_purged_person_are_not_adopted(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    kept = vcf(tmp_path)
    raw = tmp_path / "copy.txt"
    raw.write_bytes((project.root / "reads/A3.txt").read_bytes())
    take(project, kept)
    make_all(again(project))
    set_consent(project, ["P2"], REVOKED)
    remove(project, "P2", "asked for", "P2")
    project = again(project)
    for path in (kept, raw):
        with pytest.raises(Usage, match="the project has these bytes already"):
            take(project, path, P1_ALONE)
