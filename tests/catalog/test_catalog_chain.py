"""The chain of events and provenance.jsonl: every tampering is found, every crash is repaired by who comes next."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update

from ctcore.catalog.engine import Catalog
from ctcore.catalog.event_log import check_chain, event_digest
from ctcore.catalog.tables import event
from ctcore.errors import CatalogError
from ctcore.store.digest import canonical_json
from tests.helpers.processes import together

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def catalog(catalog_url: str, tmp_path: Path) -> Iterator[Catalog]:
    """A catalog with five events, of two transactions."""
    opened = Catalog(catalog_url, "toy", tmp_path / "toy.jsonl", "tester").open()
    with opened.write() as writer:
        writer.event("register", "sheet.csv", {"new": ["P1", "Ærøskøbing\n", 0.1]})
        writer.event("look", "assay/A1", None)
    with opened.write() as writer:
        for number in range(3):
            writer.event("count", f"patient/P{number}", number)
    yield opened
    opened.engine.dispose()


def rows(catalog: Catalog) -> list[dict[str, Any]]:
    with catalog.read() as connection:
        return [dict(row) for row in connection.execute(select(event).order_by(event.c.seq)).mappings()]


def tamper(catalog: Catalog, *statements: Any) -> None:
    """Change events as somebody with the database's password could."""
    with catalog.engine.connect().execution_options(ct_write=True) as connection, connection.begin():
        for statement in statements:
            connection.execute(statement)


def again(catalog: Catalog) -> Catalog:
    """As a new process would open it."""
    url = catalog.url.render_as_string(hide_password=False)
    return Catalog(url, "toy", catalog.journal.path, "tester").open()


def only_problem(catalog: Catalog) -> str:
    (problem,) = check_chain(iter(rows(catalog)))
    return str(problem)


def test_a_whole_chain_has_no_problem(catalog: Catalog) -> None:
    assert [row["seq"] for row in rows(catalog)] == [1, 2, 3, 4, 5]
    assert check_chain(iter(rows(catalog))) == []
    assert list(catalog.journal.read()) == rows(catalog)


@pytest.mark.parametrize("number", [1, 3, 5])
@pytest.mark.parametrize("field", ["body", "actor", "subject", "kind", "at"])
def test_a_changed_event_is_found(catalog: Catalog, number: int, field: str) -> None:
    tamper(catalog, update(event).where(event.c.seq == number).values({field: '"other"'}))
    problem = only_problem(catalog)
    assert problem.startswith(f"event {number} ") and problem.endswith("was changed after it was written")


def test_a_changed_event_with_a_new_digest_is_found(catalog: Catalog) -> None:
    changed = {**rows(catalog)[2], "body": '"other"'}
    changed["digest"] = event_digest(changed)
    tamper(catalog, update(event).where(event.c.seq == 3).values(changed))
    problem = only_problem(catalog)
    assert problem.startswith("event 4 ") and "does not follow" in problem


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_removed_event_is_found(catalog: Catalog, number: int) -> None:
    tamper(catalog, delete(event).where(event.c.seq == number))
    problem = only_problem(catalog)
    assert f"event {number} is missing before it" in problem


def test_a_swapped_pair_is_found(catalog: Catalog) -> None:
    """Also where the numbers are swapped with them, so that none is missing."""
    found = rows(catalog)
    assert check_chain(iter([found[0], found[2], found[1], *found[3:]]))
    set_seq = [update(event).where(event.c.digest == found[one]["digest"]).values(seq=to) for one, to in SWAP]
    tamper(catalog, *set_seq)
    assert [row["seq"] for row in rows(catalog)] == [1, 2, 3, 4, 5]
    problems = list(map(str, check_chain(iter(rows(catalog)))))
    assert any(problem.startswith("event 2 ") for problem in problems)
    assert any(problem.startswith("event 3 ") for problem in problems)


SWAP = ((1, 99), (2, 2), (1, 3))


@quick
@given(body=bodies, subject=texts.filter(lambda text: "\0" not in text))
def test_every_body_comes_back_as_it_was(catalog: Catalog, body: Any, subject: str) -> None:
    with catalog.write() as writer:
        writer.event("any", subject, body)
    last = rows(catalog)[-1]
    assert (last["subject"], last["body"]) == (subject, canonical_json(body).decode())
    assert list(catalog.journal.read())[-1] == last
    assert event_digest(last) == last["digest"]


def by_opening(catalog: Catalog) -> None:
    catalog.open()


def by_writing(catalog: Catalog) -> None:
    with catalog.write() as writer:
        writer.event("more", "x", None)


@quick
@given(part=st.floats(0, 1), torn=st.sampled_from([b"", b"\0" * 40, b'{"seq":']), next_one=st.sampled_from([0, 1]))
def test_a_file_cut_anywhere_is_made_whole_by_who_comes_next(
    catalog: Catalog, part: float, torn: bytes, next_one: int
) -> None:
    path = catalog.journal.path
    whole = path.read_bytes()
    path.write_bytes(whole[: round(part * len(whole))] + torn)
    (by_opening, by_writing)[next_one](catalog)
    assert path.read_bytes()[: len(whole)] == whole
    assert list(catalog.journal.read()) == rows(catalog)


@pytest.mark.parametrize("repair", [by_opening, by_writing])
def test_a_lost_file_is_written_anew(catalog: Catalog, repair: Callable[[Catalog], None]) -> None:
    whole = catalog.journal.path.read_bytes()
    catalog.journal.path.unlink()
    repair(catalog)
    assert catalog.journal.path.read_bytes().startswith(whole)


def test_a_line_longer_than_any_buffer_is_found_and_cut(catalog: Catalog) -> None:
    with catalog.write() as writer:
        writer.event("long", "x", "long" * 100_000)
    whole = catalog.journal.path.read_bytes()
    catalog.open()
    assert catalog.journal.path.read_bytes() == whole
    catalog.journal.path.write_bytes(whole[:-200_000])
    catalog.open()
    assert catalog.journal.path.read_bytes() == whole


def modified(catalog: Catalog) -> tuple[int, int, int]:
    """What a write changes of the file; that it was read is no change."""
    seen = catalog.journal.path.stat()
    return seen.st_ino, seen.st_size, seen.st_mtime_ns


def test_opening_a_current_catalog_leaves_the_file_alone(catalog: Catalog) -> None:
    before = modified(catalog)
    again(catalog)
    assert modified(catalog) == before


def test_a_process_killed_between_commit_and_file_is_made_good(catalog: Catalog, catalog_url: str) -> None:
    killed = """
import os, signal
from ctcore.catalog.event_log import Journal
Journal.follow = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with catalog.write() as writer:
    writer.event("killed", who, 1)
"""
    before = catalog.journal.path.read_bytes()
    assert together(catalog_url, catalog.journal.path, [killed]) == [(-signal.SIGKILL, "")]
    assert catalog.journal.path.read_bytes() == before
    assert rows(catalog)[-1]["kind"] == "killed"
    again(catalog)
    assert list(catalog.journal.read()) == rows(catalog)
    assert len(rows(catalog)) == 6


LOOP = """
import sys
from pathlib import Path
from ctcore.catalog.engine import Catalog
catalog = Catalog(sys.argv[1], "toy", Path(sys.argv[2])).open()
while True:
    with catalog.write() as writer:
        writer.event("one", "x", "x" * 5000)
        writer.event("two", "x", "x" * 5000)
"""


def test_a_killed_writer_leaves_whole_transactions(catalog: Catalog, catalog_url: str) -> None:
    for round_number in range(1, 4):
        with subprocess.Popen([sys.executable, "-c", LOOP, catalog_url, str(catalog.journal.path)]) as child:
            deadline = time.monotonic() + 60
            while len(rows(catalog)) < 5 + 60 * round_number and time.monotonic() < deadline:
                assert child.poll() is None
            child.kill()
        again(catalog)
        found = rows(catalog)
        assert len(found) >= 5 + 60 * round_number
        assert [row["kind"] for row in found[5:]] == ["one", "two"] * (len(found[5:]) // 2)
        assert check_chain(iter(found)) == []
        assert list(catalog.journal.read()) == found


def test_a_catalog_older_than_its_file_says_so(catalog: Catalog) -> None:
    """As after restoring a backup: what is done now would get the numbers of other events."""
    tamper(catalog, delete(event).where(event.c.seq == 5))
    with pytest.raises(CatalogError, match=r"the catalog lacks event 5, which .*toy\.jsonl has.*backup.*`ct recover`"):
        again(catalog)
    kept = catalog.journal.path.rename(catalog.journal.path.with_name("kept.jsonl"))
    again(catalog)
    assert list(catalog.journal.read()) == rows(catalog)
    assert kept.read_bytes().startswith(catalog.journal.path.read_bytes())


def test_a_history_written_anew_does_not_agree_with_the_file(catalog: Catalog) -> None:
    """Whoever makes all digests anew makes a whole chain, but another one."""
    found, statements = rows(catalog), []
    found[0]["body"] = '"other"'
    previous = found[0]["previous"]
    for row in found:
        row["previous"] = previous
        previous = row["digest"] = event_digest(row)
        statements.append(update(event).where(event.c.seq == row["seq"]).values(row))
    tamper(catalog, *statements)
    assert check_chain(iter(rows(catalog))) == []
    with pytest.raises(CatalogError, match="another event 5"):
        again(catalog)


@pytest.mark.parametrize("line", [b"not JSON\n", b"5\n", b"\n", b"{}\n", b'{"seq": "x", "digest": "x"}\n', b"\xff\n"])
def test_a_file_that_somebody_edited_is_named_with_its_line(catalog: Catalog, line: bytes) -> None:
    with catalog.journal.path.open("ab") as stream:
        stream.write(line)
    with pytest.raises(CatalogError, match=r"toy\.jsonl: its last line is not an event.*`ct recover`"):
        again(catalog)
    with pytest.raises(CatalogError, match=r"toy\.jsonl line 6 is not an event"):
        list(catalog.journal.read())


def test_an_unwritable_file_leaves_the_events_in_the_catalog(catalog: Catalog) -> None:
    path = catalog.journal.path
    path.unlink()
    path.mkdir()
    with pytest.raises(CatalogError, match=r"toy\.jsonl is not a regular file: move it away, and `ct recover`"):
        by_writing(catalog)
    assert len(rows(catalog)) == 6
    path.rmdir()
    again(catalog)
    assert list(catalog.journal.read()) == rows(catalog)


def test_lines_are_read_by_other_programs(catalog: Catalog) -> None:
    """One JSON object a line, the body as a value and not as a text in a text."""
    lines = catalog.journal.path.read_text().splitlines()
    first = json.loads(lines[0])
    assert first["body"] == {"new": ["P1", "Ærøskøbing\n", 0.1]}
    assert (first["seq"], first["actor"], first["kind"]) == (1, "tester", "register")
    assert os.linesep not in lines[0] and len(lines) == 5
