"""Values are the same on both back ends: JSON texts, numbers of files, what tools say."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from ctcore.catalog.attribute_sql import attribute
from ctcore.catalog.engine import Catalog, in_keys
from ctcore.catalog.tables import artifact, attempt, digest_memory, entity
from ctcore.catalog.tables import event as event_table
from ctcore.execution.ledger import FailedCall, record_failures
from ctcore.governance.access import barred_entities
from ctcore.intake.raw_files import Memory
from ctcore.model.cohort_rule import Cohort, Condition
from ctcore.snapshot.entities import Columns, load_entities
from ctcore.snapshot.hierarchy import Hierarchy, in_cohort
from ctcore.store.digest import Signature, canonical_json
from tests.helpers.kit import make_all, make_project

# a sheet has no control characters, see ctcore.sheet.rows
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12) | st.sampled_from(
    ['"', "\\", "null", "1", "å"]
)
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ODD = [None, True, False, 0, -0.0, 1, 1.0, 10**30, 1e22, 1e-7, "", "1", "null", "true", 'a"b', "a\\", "\u2028", "😀"]


@pytest.fixture
def catalog(catalog_url: str, tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog(catalog_url, "toy", tmp_path / "toy.jsonl").open()
    yield opened
    opened.engine.dispose()


def ask(catalog: Catalog, listed: list[Any], question: Callable[[Connection], list[Any]]) -> list[Any]:
    """The answer while there is one patient for each of these values; nothing of it is kept."""
    rows = [
        {
            "seq": number,
            "level": "patient",
            "id": f"P{number}",
            "parent": None,
            "attributes": canonical_json(said).decode(),
        }
        for number, said in enumerate({} if value is None else {"it": value, "other": 1} for value in listed)
    ]
    with catalog.exclusive() as connection:
        if rows:
            connection.execute(entity.insert(), rows)
        answer = question(connection)
        connection.rollback()
    return answer


@quick
@given(st.lists(values, max_size=8))
@example(ODD)
def test_a_value_is_its_canonical_text_wherever_it_is_kept(catalog: Catalog, listed: list[Any]) -> None:
    dialect = "sqlite" if catalog.is_sqlite else "postgresql"
    texts = select(attribute(entity, "it", dialect)).order_by(entity.c.seq)
    found = ask(catalog, listed, lambda connection: list(connection.execute(texts).scalars()))
    assert found == [canonical_json(value).decode() for value in listed]


def means(wanted: str, value: Any) -> bool:
    """Whether a value of ct.toml names this value: as text, or as the number or boolean that it spells."""
    if isinstance(value, str) or value is None:
        return value == wanted
    if isinstance(value, bool):
        return wanted == ("true" if value else "false")
    try:
        number = json.loads(wanted)
    except ValueError:
        return False
    return isinstance(number, int | float) and not isinstance(number, bool) and number == value


SPELLED = ["1", "1.0", "0", "true", "True", "false", "null", "", "F", 'a"b', "a\\", "😀", "NaN", "1e22", '"F"', "[1]"]


@quick
@given(st.lists(values, max_size=8), st.sampled_from(SPELLED) | texts)
@example([*ODD, "F", '"F"', "[1]", "True"], "1")
def test_a_cohort_takes_who_has_the_value_and_nobody_else(catalog: Catalog, listed: list[Any], wanted: str) -> None:
    everything = [*listed, *ODD, "F", '"F"', "[1]", "True"]
    cohort = Cohort("some", {"patient.it": (Condition("is", (wanted,)),)})

    def members(connection: Connection) -> list[Any]:
        entities = load_entities(connection, Columns.of(["patient.it"]), barred_entities(connection, {}, "2026-01-01"))
        return np.flatnonzero(in_cohort(Hierarchy(entities), "patient", cohort)).tolist()

    assert ask(catalog, everything, members) == [
        number for number, value in enumerate(everything) if means(wanted, value)
    ]


def test_a_file_may_have_any_number_on_its_disk(catalog_url: str, tmp_path: Path) -> None:
    """Inode numbers have 64 bits, and some network and container file systems use all of them."""
    project = make_project(tmp_path / "toy")
    path = project.root / "genome.txt"
    fields = list(os.stat(path))
    seen = {
        Signature.from_stat(os.stat_result([fields[0], inode, *fields[2:]], {"st_mtime_ns": 5, "st_ctime_ns": 5}))
        for inode in (2**64 - 1, 1)
    }
    assert len(seen) == 2
    for one in seen:
        Memory(project).remember({path: (one, "digest")})
        assert Memory(project).lookup({path: one}) == {path: "digest"}
    with project.catalog.read() as connection:
        assert connection.execute(select(digest_memory.c.inode).where(digest_memory.c.path == "genome.txt")).scalar()


@pytest.mark.parametrize("said", ["a\0b", "a\udcffb"], ids=["NUL", "not UTF-8"])
def test_what_a_failing_tool_says_can_be_anything(catalog_url: str, tmp_path: Path, said: str) -> None:
    project = make_project(tmp_path / "toy")
    record_failures(project, [FailedCall(("counted", "A1"), "key", said, None)], None)
    with project.catalog.read() as connection:
        assert connection.execute(select(attempt.c.error)).scalar() in ("a\ufffdb", "a?b")
        assert "fail" in connection.execute(select(event_table.c.kind)).scalars().all()


def test_any_number_of_keys_is_one_value(catalog_url: str, tmp_path: Path) -> None:
    """Databases take some 30,000 values a statement; a cohort has more."""
    project = make_project(tmp_path / "toy")
    make_all(project)
    with project.catalog.read() as connection:
        for column, known in ((artifact.c.partition, "A1"), (artifact.c.materialization, 1)):
            many = [known, *(f"X{n}" if isinstance(known, str) else n + 1000 for n in range(70_000))]
            found = connection.execute(select(column).where(in_keys(column, many))).scalars().all()
            assert found == [known]
