"""A waiver holds for one making and one difference; what was built from an accepted node says so, however far down."""

import pytest
from sqlalchemy import select, update

from ctcore.catalog.tables import artifact, waiver
from ctcore.governance.masking import UNMASKED
from ctcore.project import Project
from ctcore.staleness.accept import accept, propose
from ctcore.staleness.verdicts import evaluate
from ctcore.staleness.waivers import accepted_sources, any_waiver, summaries, waived_reasons, waivers_of
from tests.helpers.kit import STEPS, again, make_all, make_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Everything made; then the code of `counted` changed, and two of three nodes were accepted with it."""
    project = make_project(tmp_path_factory.mktemp("waived") / "toy")
    make_all(project)
    (project.root / "steps/toy.py").write_text(STEPS.replace("strip()) *", "strip()) * 1 *"))
    project = again(project)
    accept(project, propose(project, {"counted": {"A1", "A3"}}, frozenset({"code"})), "only the layout")
    return project


def test_a_waiver_is_of_a_node_a_making_and_a_difference(project: Project) -> None:
    verdicts = evaluate(project)
    assert [verdicts.of("counted", name).state for name in ("A1", "A2", "A3")] == ["fresh", "stale", "fresh"]
    (reason,) = verdicts.of("counted", "A2").reasons
    with project.catalog.exclusive() as connection:
        found = waived_reasons(connection, "counted")
        assert found == {"A1": {reason.evidence}, "A3": {reason.evidence}}
        assert waived_reasons(connection, "merged") == {} and any_waiver(connection)
        other = select(artifact.c.materialization).where(artifact.c.partition == "A3").scalar_subquery()
        connection.execute(update(artifact).where(artifact.c.partition == "A1").values(materialization=other))
        assert waived_reasons(connection, "counted").keys() == {"A3"}, "another making was not accepted"
        connection.execute(update(waiver).values(undone=1))
        assert waived_reasons(connection, "counted") == {}
        connection.rollback()


def test_what_was_built_from_an_accepted_node_says_so(project: Project) -> None:
    verdicts = evaluate(project)
    with project.catalog.read() as connection:
        marked = verdicts.with_acceptances()
        merged = accepted_sources(connection, "merged", ["S1", "S2"], marked)
        assert merged.keys() == {"S1", "S2"}
        (joined,) = accepted_sources(connection, "joined", ["all"], marked)["all"]
        assert str(joined).startswith("built from 2 nodes of counted") and "only the layout" in UNMASKED.mask_words(
            joined
        )
        assert accepted_sources(connection, "counted", ["A1"], marked) == {}, "a node is not built from itself"
        assert accepted_sources(connection, "joined", ["all"], []) == {}


def test_one_acceptance_of_many_nodes_is_one_line(project: Project) -> None:
    verdicts = evaluate(project)
    with project.catalog.read() as connection:
        marked = list(verdicts.with_acceptances())
        assert set(waivers_of(connection, marked)) == {("counted", "A1"), ("counted", "A3")}
        (line,) = summaries(connection, marked)
    assert "2 nodes of counted" in str(line) and "only the layout" in UNMASKED.mask_words(line)
