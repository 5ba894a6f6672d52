"""Members of a making as they were then, and counts by role of the current ones."""

import pytest
from sqlalchemy import delete, select, update

from ctcore.catalog.member_roles import members_of, role_counts
from ctcore.catalog.tables import artifact, member
from ctcore.project import Project
from tests.helpers.kit import assay, make_all, make_project

ROWS = [assay("P2", "S2", "A3", sex="M"), assay("P1", "S1", "A1", sex="F"), assay("P1", "S1", "A2", sex="F")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = make_project(tmp_path_factory.mktemp("members") / "toy", rows=ROWS)
    make_all(project)
    return project


def test_members_are_in_order_of_registration(project: Project) -> None:
    wanted = select(artifact.c.materialization).where(artifact.c.asset == "joined")
    with project.catalog.exclusive() as connection:
        number = connection.execute(wanted).scalar_one()
        assert [who for _, who, _ in members_of(connection, number)] == ["S2", "S1"]
        connection.execute(update(member).where(member.c.entity == "S2").values(entity="S9"))
        assert [who for _, who, _ in members_of(connection, number)] == ["S1", "S9"]
        connection.rollback()


def test_roles_are_counted_for_current_makings_of_these_steps(project: Project) -> None:
    with project.catalog.exclusive() as connection:
        assert role_counts(connection, ["joined"]) == {("joined", "all"): {"member": 2}}
        connection.execute(update(member).where(member.c.entity == "S2").values(role="case"))
        assert role_counts(connection, ["joined"]) == {("joined", "all"): {"member": 1, "case": 1}}
        assert role_counts(connection, []) == {}
        connection.execute(delete(artifact).where(artifact.c.asset == "joined"))
        assert role_counts(connection, ["joined"]) == {}, "no making is current"
        connection.rollback()
