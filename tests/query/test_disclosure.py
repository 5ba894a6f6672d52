"""Excluded content is shown only for a reason, on record; a refusal says why, and names nobody hidden."""

import json
import shutil
from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.tables import artifact, event
from ctcore.errors import Usage
from ctcore.lineage.walk import Lineage, Making, lineage_of
from ctcore.model.masked_text import Words
from ctcore.project import Project
from ctcore.query.disclosure import (
    allow,
    disclose,
    mask_for_makings,
    readable_makings,
    refuse_excluded,
    shows_excluded,
    why_hidden,
    why_withheld,
)
from tests.helpers.kit import STEPS, again, assay, fail, make_all, make_project
from tests.helpers.purging import revoke
from tests.helpers.shell import ct


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All made; then P1 revokes consent."""
    project = make_project(tmp_path_factory.mktemp("made") / "toy")
    make_all(project)
    revoke(project, "P1")
    project.catalog.engine.dispose()
    return project.root


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Project:
    shutil.copytree(made, tmp_path / "toy")
    return Project.find(tmp_path / "toy")


def disclosures(project: Project) -> list[tuple[str, str]]:
    with project.catalog.read() as connection:
        rows = connection.execute(select(event.c.subject, event.c.body).where(event.c.kind == "disclose")).all()
    return [(row.subject, json.loads(row.body)["reason"]) for row in rows]


@pytest.mark.parametrize("reason", [None, "", "  ", "two\nlines"])
def test_without_a_reason_in_one_line_nothing_is_shown(project: Project, reason: str | None) -> None:
    with pytest.raises(Usage, match="say in one line why you have to see it: --reason TEXT"):
        shows_excluded(project, True, reason, "ct export")
    assert disclosures(project) == []


def test_a_reason_without_the_wish_is_an_error(project: Project) -> None:
    with pytest.raises(Usage, match="--reason goes with --excluded"):
        shows_excluded(project, False, "audit", "ct export")
    assert shows_excluded(project, False, None, "ct export") is False and disclosures(project) == []


def test_a_disclosure_is_on_record_before_anything_is_shown(project: Project) -> None:
    assert shows_excluded(project, True, " audit of May ", "ct export") is True
    assert disclosures(project) == [("ct export", "audit of May")]


def test_a_node_that_may_be_seen_needs_no_reason(project: Project) -> None:
    assert why_withheld(project, ("counted", "A3")) is None and why_withheld(project, ("reference", "genome")) is None
    disclose(project, ("counted", "A3"), excluded=False, reason=None)
    allow(project, "anything", None, excluded=False, reason=None)
    assert disclosures(project) == []


def test_a_refusal_names_nobody_and_the_way_out(project: Project) -> None:
    with pytest.raises(Usage) as error:
        disclose(project, ("joined", "all"), excluded=False, reason=None)
    said = str(error.value)
    assert said.startswith("joined/all is excluded: 1 patient in it whose consent does not allow")
    assert "P1" not in said and "S1" not in said and "`ct run` makes it without them" in said
    disclose(project, ("joined", "all"), excluded=True, reason="audit")
    assert disclosures(project) == [("joined/all", "audit")]


def test_quality_withholds_results_and_not_what_is_registered(project: Project) -> None:
    fail(project, "S2")
    assert why_withheld(project, ("specimen", "S2")) is None and why_withheld(project, ("merged", "S2")) is not None
    assert why_withheld(project, ("specimen", "S1")) is not None, "consent withholds both"


def test_nodes_that_may_not_be_made_are_refused_together(project: Project) -> None:
    refuse_excluded(project, [("counted", "A3"), ("patient", "P1")])
    with pytest.raises(Usage) as error:
        refuse_excluded(project, [("counted", "A1"), ("merged", "S1"), ("counted", "A3")])
    said = str(error.value).split("; ")
    assert len(said) == 2 and all(" is excluded: " in one for one in said)


def makings(project: Project) -> tuple[list[Making], Lineage]:
    with project.catalog.read() as connection:
        number = connection.execute(select(artifact.c.materialization).where(artifact.c.asset == "joined")).scalar_one()
        found = lineage_of(project, connection, [number])
    return list(found.makings.values()), found


def test_makings_are_read_by_who_is_inside_them(project: Project) -> None:
    listed, lineage = makings(project)
    readable = readable_makings(project, listed, lineage)
    assert {one.node for one in listed if one.id in readable} == {("counted", "A3"), ("merged", "S2")}
    assert why_hidden(project, [one for one in listed if one.id in readable], lineage, ()) is None
    (joined,) = (one for one in listed if one.asset == "joined")
    assert isinstance(why_hidden(project, [joined], lineage, ()), Words)
    assert why_hidden(project, [], lineage, [("patient", "P1")]) is not None
    assert mask_for_makings(project, listed).names_hidden("of P1 and P2") and not mask_for_makings(
        project, []
    ).names_hidden("P2")


def test_the_log_of_a_failed_call_without_them_is_shown(tmp_path: Path) -> None:
    """The current result contains P1. The call that failed since did not: its log is no secret, and `ct run` is no way
    out of a refusal, as it fails again."""
    strict = """
@step(level="cohort", inputs={"some": "merged"}, outputs={"n": "n.txt"})
def strict(call: Call) -> None:
    print("members:", len(call.many("some")))
    assert len(call.many("some")) > 1, "too few"
    call.out("n").write_text("enough")
"""
    rows = [assay("P1", "S1", "A1"), assay("P2", "S2", "A2")]
    project = make_project(tmp_path / "toy", rows, steps=STEPS + strict)
    make_all(project, inline=False)
    assert ct("-C", project.root, "logs", "strict/all").out == "members: 2\n"
    revoke(project, "P1")
    refused = ct("-C", project.root, "logs", "strict/all")
    assert refused.code == 2 and "1 patient in it" in refused.err and not refused.out
    make_all(again(project), inline=False)
    shown = ct("-C", project.root, "logs", "strict/all")
    assert shown.code == 0 and "members: 1\n" in shown.out and "too few" in shown.out, shown
    assert ct("-C", project.root, "path", "strict/all").code == 2, "the result is what it was"
