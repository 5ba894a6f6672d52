"""Which inputs the catalog names and does not know, in the catalog's own words."""

from pathlib import Path

from sqlalchemy import select

from ctcore.catalog.lost_inputs import lost_among, lost_sources, makings_of_lost_inputs, was_recovered
from ctcore.catalog.tables import materialization
from tests.deletion.test_purge import built
from tests.integrity.test_lost_inputs import without


def test_only_a_recovery_leaves_inputs_that_no_making_has(tmp_path: Path) -> None:
    project = built(tmp_path / "toy", [[1], [1]])
    levels = [(step.name, step.level) for step in project.steps]
    with project.catalog.read() as connection:
        assert not was_recovered(connection) and lost_sources(connection) == {}
        assert makings_of_lost_inputs(connection, levels) == set()
    project = without(project, "joined", "heard/A100")
    with project.catalog.read() as connection:
        made = {row.asset: row for row in connection.execute(select(materialization).order_by(materialization.c.id))}
        assert lost_sources(connection) == {"joined": {"all"}, "heard": {"A100"}}
        assert makings_of_lost_inputs(connection, levels) == {made["few"].id, made["merged"].id}
        few = ("few", "all", made["few"].data_version)
        known = {few, ("assay", "A100", "row"), ("reference", "genome", "v1"), ("cohort", "all", "rule")}
        lost = {("few", "all", "0" * 64), ("joined", "all", "0" * 64), ("assay", "A900", "row")}
        assert lost_among(connection, known | lost) == lost
