"""After a purge, no table and no event holds a value of the person; a value that comes back is named by its place."""

import json
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from ctcore.catalog.engine import Writer
from ctcore.catalog.tables import attempt, entity, event, materialization, member
from ctcore.deletion.redact import redact_person, redaction_scope, remaining_values
from ctcore.deletion.redacted_events import purges
from ctcore.lineage.containment import containment_of
from ctcore.project import Project
from ctcore.store.digest import canonical_json
from tests.helpers.kit import make_all, make_project
from tests.helpers.purging import purge_patient


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = make_project(tmp_path_factory.mktemp("redacted") / "toy")
    make_all(project)
    purge_patient(project, "P1")
    return project


def attributes(connection: Any) -> dict[str, str]:
    return {row.id: row.attributes for row in connection.execute(select(entity.c.id, entity.c.attributes))}


def test_a_purge_leaves_the_attributes_of_others_only(project: Project) -> None:
    with project.catalog.read() as connection:
        left = attributes(connection)
        assert left["P1"] == "{}" and "M" in left["P2"]
        assert not list(remaining_values(project, connection, containment_of(project, connection, "P1")))


@pytest.mark.parametrize(
    ("put_back", "place", "what"),
    [
        (update(entity).where(entity.c.id == "P1").values(attributes='{"sex":"F"}'), "entity 1", "attributes"),
        (update(entity).where(entity.c.id == "P1").values(purged=None), "entity 1", "somebody who was not purged"),
        (
            update(materialization).where(materialization.c.asset == "merged").values(facts='{"a":1}'),
            None,
            "facts, undeclared",
        ),
        (update(member).values(role="case"), None, "role"),
    ],
    ids=("attributes", "purged", "facts", "role"),
)
def test_a_value_that_came_back_is_named_and_taken_out(project: Project, put_back: Any, place: str, what: str) -> None:
    with project.catalog.exclusive() as connection:
        writer = Writer(connection, "ada")
        writer.overwrite()
        before = attributes(connection)
        connection.execute(put_back)
        found = containment_of(project, connection, "P1")
        named = list(remaining_values(project, connection, found))
        assert named and all(said == what for _, said in named) and (place is None or named[0][0] == place)
        redact_person(project, writer, found, (), 1)
        assert not list(remaining_values(project, connection, found)) and attributes(connection) == before
        connection.rollback()


def test_a_redacted_event_with_any_other_words_is_named(project: Project) -> None:
    """By the digest that the purge recorded: where no known place of an event has the value, too."""
    with project.catalog.exclusive() as connection:
        Writer(connection, "ada").overwrite()
        found = containment_of(project, connection, "P1")
        seq = min(purges(connection).listed)
        body = connection.execute(select(event.c.body).where(event.c.seq == seq)).scalar_one()
        words = canonical_json({**json.loads(body), "note": "born in May"}).decode()
        connection.execute(update(event).where(event.c.seq == seq).values(body=words))
        ((place, what),) = remaining_values(project, connection, found)
        assert place.startswith(f"event {seq} ") and what == "values that a purge removed"
        connection.rollback()


def test_errors_go_of_own_calls_and_where_they_name_the_person(project: Project) -> None:
    texts = {("counted", "A1"): "bad", ("counted", "A3"): "bad", ("joined", "all"): "A1 is bad", ("joined", "x"): "A10"}
    with project.catalog.exclusive() as connection:
        columns = {one.name: "t" for one in attempt.columns if not one.nullable and one.name != "id"}
        for number, ((asset, partition), error) in enumerate(texts.items(), 1):
            row = {**columns, "id": number, "asset": asset, "partition": partition, "error": error, "log": "l"}
            connection.execute(insert(attempt).values(**row))
        writer = Writer(connection, "ada")
        redact_person(project, writer, containment_of(project, connection, "P1"), (), 1)
        left = connection.execute(select(attempt.c.error).order_by(attempt.c.id)).scalars().all()
        assert left == ["purged", "bad", "purged", "A10"]
        connection.rollback()


def test_the_scope_has_the_person_and_nobody_else(project: Project) -> None:
    with project.catalog.read() as connection:
        whose = redaction_scope(project, connection, containment_of(project, connection, "P1"), [99])
    assert whose.names == {"patient/P1", "specimen/S1", "assay/A1", "assay/A2"} and 99 in whose.makings
    assert whose.steps == {"counted": {"A1", "A2"}, "merged": {"S1"}} and whose.many == {"joined"}
    assert whose.any_id.search("of A1.") and not whose.any_id.search("of A10.")
