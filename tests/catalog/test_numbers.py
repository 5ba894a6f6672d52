"""Numbers of rows and purges where two histories gave the same ones."""

import json
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from ctcore.catalog.event_log import REDACTED
from ctcore.catalog.purge_numbers import PurgeNumbers
from ctcore.catalog.row_numbers import FREE, left_free, next_number, setting_of
from ctcore.catalog.tables import materialization, setting
from tests.helpers.kit import make_all, make_project


def purge(number: int) -> dict[str, object]:
    """The first event of a purge; only that one says what was redacted."""
    return {"purge": number, "patient": "P1", "removed": [{"materialization": 7}], REDACTED: []}


def test_a_new_row_comes_after_those_left_free(tmp_path: Path, catalog_url: str) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    column = materialization.c.id
    with project.catalog.write() as writer:
        last = writer.execute(select(column).order_by(column.desc())).scalar()
        assert next_number(writer.connection, column) == last + 1
        free = json.dumps({"materialization": last + 5})
        writer.execute(insert(setting).values(name=FREE, value=free))
        assert next_number(writer.connection, column) == last + 6
        writer.event("benchmark", project.id, {})


def test_what_a_loss_leaves_free_grows_with_it() -> None:
    one, many = left_free({"purge": 3}, 1), left_free({"purge": 3}, 20)
    assert (one["purge"], many["purge"]) == (4, 23) and one["entity"] == 1000
    assert left_free({}, 2**40)["entity"] == 2**30, "numbers stay numbers of a database"
    assert setting_of({}) is None and json.loads(setting_of({FREE: one}) or "") == one


def test_of_two_purges_with_one_number_the_later_gets_another() -> None:
    numbers = PurgeNumbers()
    assert [numbers.purge(seq, purge(said)) for seq, said in ((3, 1), (5, 2), (9, 1))] == [1, 2, 3]
    assert (numbers.begun, numbers.news, numbers.changed) == ({1: 3, 2: 5, 3: 9}, {3: 1}, {"1": 3, "3": 9})


def test_the_further_events_of_a_purge_are_its_own() -> None:
    numbers = PurgeNumbers()
    further = {name: value for name, value in purge(1).items() if name != REDACTED}
    assert [numbers.purge(3, purge(1)), numbers.purge(4, further)] == [1, 1] and numbers.begun == {1: 3}


def test_a_recovery_keeps_whose_a_number_is() -> None:
    numbers = PurgeNumbers()
    for seq, said in ((3, 1), (9, 1)):
        numbers.purge(seq, purge(said))
    assert numbers.of(1) == 2, "the last that was begun under it"
    numbers.recovered({"purges": {"1": 3, "2": 9}})
    assert (numbers.of(1), numbers.of(2), numbers.news) == (1, 2, {})


def test_an_event_that_tells_of_no_purge_is_refused() -> None:
    with pytest.raises((KeyError, TypeError)):
        PurgeNumbers().purge(3, {"purge": 1})
