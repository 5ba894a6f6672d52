"""Catalog and journal against their common history: every loss and every edit is named, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, text, update

from ctcore.catalog.tables import entity, event
from ctcore.integrity.losses import MOST, Losses, event_ranges, losses
from ctcore.project import Project
from tests.helpers.kit import Inline, again, make, make_project

Harm = Callable[[Project], object]


@given(st.sets(st.integers(1, 60), min_size=1))
def test_a_list_of_events_names_each_or_counts_them(seqs: set[int]) -> None:
    said = event_ranges(seqs)
    runs = sum(seq - 1 not in seqs for seq in seqs)
    if runs > MOST:
        assert said == f"{len(seqs)} events, the first is {min(seqs)}"
        return
    parts = said.removeprefix("events ").removeprefix("event ").replace(" and ", ", ").split(", ")
    ends = [[int(one) for one in part.split(" to ")] for part in parts]
    assert {seq for end in ends for seq in range(end[0], end[-1] + 1)} == seqs and len(ends) == runs


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = make_project(tmp_path / "toy")
    make(project, "counted", "A1", runner=Inline(project))
    return project


def found(project: Project) -> Losses:
    project.catalog.engine.dispose()
    return losses(again(project).closed_catalog())


def sql(statement: object) -> Harm:
    def harm(project: Project) -> None:
        """By hand, past the rules inside the database."""
        with project.catalog.engine.connect() as connection, connection.begin():
            for name in (
                connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all()
            ):
                connection.execute(text(f'DROP TRIGGER "{name}"'))
            connection.execute(statement)  # type: ignore[call-overload]

    return harm


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Harm:
    def harm(project: Project) -> None:
        place = project.root / "provenance.jsonl"
        place.write_bytes(b"".join(change(place.read_bytes().splitlines(keepends=True))))

    return harm


def edited(line: bytes) -> bytes:
    row = json.loads(line)
    return json.dumps({**row, "actor": "eve"}).encode() + b"\n"


def test_two_whole_records_have_lost_nothing(project: Project) -> None:
    one = found(project)
    assert one.words == [] and one.is_catalog_whole and one.is_journal_whole and one.catalog == "there"
    assert one.events == one.lines == one.history.rows and one.left_out == ([], []) and one.redacted == {}


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lines(lambda some: some[:-1]), "provenance.jsonl lacks event {last}, its end"),
        (lines(lambda some: some[1:]), "provenance.jsonl lacks event 1"),
        (lines(lambda some: [edited(some[0]), *some[1:]]), "provenance.jsonl has edited copies of event 1"),
        (lines(lambda some: [some[1], some[0], *some[2:]]), "provenance.jsonl has events in the wrong order, or twice"),
        (lines(lambda some: [*some, b"half"]), "provenance.jsonl line {next} is only part of an event"),
        (lines(lambda some: [*some, b"{}\n"]), "provenance.jsonl line {next} is not an event"),
        (lambda project: (project.root / "provenance.jsonl").unlink(), "provenance.jsonl is missing"),
        (sql(delete(event).where(event.c.seq == 1)), "the catalog lacks event 1"),
        (sql(update(event).where(event.c.seq == 1).values(actor="eve")), "the catalog has edited copies of event 1"),
        (sql(update(entity).where(entity.c.id == "P1").values(attributes="{}")), "entity 1 (patient/P1): age, sex: "),
    ],
)
def test_what_one_record_lost_the_other_proves(project: Project, harm: Harm, words: str) -> None:
    whole = found(project).history.rows
    harm(project)
    one = found(project)
    expected = words.format(last=len(whole), next=len(whole) + 1)
    assert one.words and one.words[0].startswith(expected), one.words
    assert one.history.rows == whole and not one.history.missing and not (one.is_catalog_whole and one.is_journal_whole)


def test_what_both_lost_is_a_gap(project: Project) -> None:
    sql(delete(event).where(event.c.seq == 2))(project)
    lines(lambda some: [some[0], *some[2:]])(project)
    one = found(project)
    assert one.history.missing == [(2, 2)] and "event 2: lost from both records" in one.words


def test_a_lost_catalog_is_told_from_a_damaged_one(project: Project) -> None:
    project.catalog.engine.dispose()
    place = project.root / "catalog.db"
    data = place.read_bytes()
    place.write_bytes(data[:100] + b"\0" * 4096 + data[4196:])
    damaged = found(project)
    assert damaged.catalog == "damaged" and "is damaged: " in damaged.words[0]
    for path in project.root.glob("catalog.db*"):
        path.unlink()
    lost = found(project)
    assert lost.catalog == "lost" and lost.words[0].endswith("catalog.db is missing") and lost.events == []
    assert len(lost.history.rows) == len(lost.lines) > 0


def test_every_readable_event_of_a_damaged_catalog_counts(project: Project) -> None:
    """The page of an index is damaged, and the journal has lost its end."""
    whole = found(project).history.rows
    index = "SELECT rootpage FROM sqlite_master WHERE type = 'index' AND tbl_name = 'edge' LIMIT 1"
    with project.catalog.engine.connect() as connection:
        connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
        page = connection.execute(text(index)).scalar_one()
    project.catalog.engine.dispose()
    with (project.root / "catalog.db").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 64)
    lines(lambda some: some[:-2])(project)
    one = found(project)
    assert one.catalog == "damaged" and one.words[0].startswith("the catalog ")
    assert one.events == one.history.rows == whole
