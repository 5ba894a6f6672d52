"""Who is inside makings of any time: held to a walk over the edges as they stand in the catalog."""

from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from ctcore.catalog.tables import edge, materialization
from ctcore.governance.consent import Statement, set_consent
from ctcore.lineage.past_contributors import PastContributors
from ctcore.lineage.walk import lineage_of
from ctcore.model.node import Node
from ctcore.project import Project
from ctcore.query.readable import Gate
from tests.governance.test_consent_lineage import CHAIN, USES
from tests.helpers.kit import ROWS, STEPS, TOML, add, again, assay, fail, make_all, make_project

P1 = {("patient", "P1"), ("specimen", "S1"), ("assay", "A1"), ("assay", "A2"), ("counted", "A1"), ("counted", "A2")}
P1 |= {("merged", "S1")}
THIRD = assay("P3", "S3", "A4", sex="F", age="60")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Made with everybody, then without P1, then with P3: makings of three times."""
    toml = TOML + USES + 'after2 = "commerce"\n'
    project = make_project(tmp_path / "toy", toml=toml, steps=STEPS + CHAIN)
    make_all(project)
    fail(project, "P1")
    make_all(again(project))
    add(project, [*ROWS, THIRD])
    make_all(again(project))
    return again(project)


def past(project: Project, connection: Connection) -> PastContributors:
    numbers = connection.execute(select(materialization.c.id)).scalars().all()
    return Gate.of(project, connection).past_contributors(lineage_of(project, connection, numbers))


def by_the_edges(connection: Connection, who: set[Node]) -> set[int]:
    """Makings with one of these inside: by content, the last making before its use."""
    made = {row.id: row for row in connection.execute(select(materialization).order_by(materialization.c.id))}
    found: set[int] = set()
    for number, one in made.items():
        used = connection.execute(select(edge).where(edge.c.materialization == number)).all()
        for row in used:
            same = [n for n, m in made.items() if n < number and m.asset == row.asset and m.partition == row.partition]
            sources = [n for n in same if made[n].data_version == row.version]
            if (row.asset, row.partition) in who or (sources and sources[-1] in found):
                found.add(number)
        if (one.asset, one.partition) in who:
            found.add(number)
    return found


def test_who_revoked_is_in_the_makings_that_took_them(project: Project) -> None:
    set_consent(project, ["P1"], Statement("revoked", form="form 1"))
    with project.catalog.read() as connection:
        expected = by_the_edges(connection, P1)
        then = past(again(project), connection)
        assert then.dirty == expected
        names = sorted("/".join(then.lineage.makings[number].node) for number in expected)
        after = [f"after{n}/all" for n in range(1, len(CHAIN.split("@step")))]
        assert names == [*after, "counted/A1", "counted/A2", "joined/all", "merged/S1"]
        assert {then.patients(then.lineage.makings[number]) for number in expected} == {1}
        assert {then.patients(made) for number, made in then.lineage.makings.items() if number not in expected} == {0}


def test_a_limited_consent_bars_one_use(project: Project) -> None:
    set_consent(project, ["P2"], Statement("limited", ("research",), form="form 4"))
    with project.catalog.read() as connection:
        then = past(again(project), connection)
        assert then.is_limited("after2") and not then.is_limited("after1")
        assert not then.nonconsenting_makings("after1")
        inside = {then.lineage.makings[number].node for number in then.nonconsenting_makings("after2")}
        assert {("counted", "A3"), ("merged", "S2"), ("after2", "all")} <= inside
        assert ("merged", "S3") not in inside
        assert then.is_limited("gone") and then.nonconsenting_makings("gone"), "nobody knows what a gone step was for"


def test_who_is_registered_no_longer_bars(project: Project) -> None:
    """A making that took somebody of whom the registry says nothing is barred, whatever it is of."""
    with project.catalog.read() as connection:
        then = past(project, connection)
        before = then.dirty
        for level in then.snapshot.entities:
            then.snapshot.entities[level].index.pop("S3", None)
        again_ = PastContributors(then.lineage, then.snapshot, Gate.of(project, connection).inputs)
        taken = {then.lineage.makings[number].node for number in again_.dirty - before}
        assert taken == {("merged", "S3"), ("joined", "all"), *((f"after{n}", "all") for n in range(1, 6))}
