"""One history from two records, whatever was done to them; and what a loss means for people until somebody answers."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from ctcore.catalog.engine import Catalog
from ctcore.catalog.event_log import GENESIS, Journal, event_digest, redact
from ctcore.catalog.merged_history import merge_history
from ctcore.catalog.tables import entity, event
from ctcore.catalog.witness import NAME, LastEvent, Witness
from ctcore.deletion.purge import erase
from ctcore.errors import CatalogError
from ctcore.governance.consent import Statement, set_consent
from ctcore.governance.masking import WITHHELD
from ctcore.inputs.current import forget
from ctcore.integrity.catalog_check import disagreements
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from ctcore.store.digest import canonical_json
from ctcore.store.store import Store
from tests.deletion.test_purge import word
from tests.helpers.killing import Moments, forked
from tests.helpers.kit import ROWS, add, again, assay, fail, make_all, make_project, write_sheet
from tests.helpers.shell import ct
from tests.integrity.test_one_way_back import Place, catalog_flipped, catalog_lost, catalog_table_gone, journal_cut
from tests.integrity.test_recover import lived_and_purged, mentioned

ACCEPT = ("recover", "--accept-loss", "--reason", "all forms were looked at")


def chain(many: int, previous: str = GENESIS, first: int = 1, kind: str = "look") -> list[dict[str, Any]]:
    rows = []
    for seq in range(first, first + many):
        row = {"seq": seq, "at": "2026-01-01", "actor": "a", "kind": kind, "subject": f"s{seq}", "body": "null"}
        row |= {"previous": previous}
        previous = row["digest"] = event_digest(row)
        rows.append(row)
    return rows


EDITS = st.tuples(st.sampled_from(["body", "kind", "actor", "digest", "previous"]), st.sampled_from(["0", "1" * 64]))


@st.composite
def broken(draw: st.DrawFn, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A record that lost, edited, doubled and shuffled some of its events."""
    kept = [row for row in rows if draw(st.booleans()) or draw(st.booleans())]
    edited = [{**row, **dict([draw(EDITS)])} if draw(st.integers(0, 5)) == 0 else row for row in kept]
    doubled = edited + [row for row in edited if draw(st.integers(0, 9)) == 0]
    return draw(st.permutations(doubled)) if draw(st.booleans()) else doubled


@settings(max_examples=400, deadline=None)
@given(data=st.data(), many=st.integers(1, 12))
def test_the_history_has_every_event_of_either_record(data: st.DataObject, many: int) -> None:
    rows = chain(many)
    records = [data.draw(broken(rows)) for _ in range(2)]
    seen = data.draw(st.sampled_from([None, (many, rows[-1]["digest"])]))
    found = merge_history(records, seen)
    whole = {row["digest"] for some in records for row in some if event_digest(row) == row["digest"]}
    proven = [row for row in found.rows if row["seq"] not in found.changed]
    assert whole <= {row["digest"] for row in proven}
    assert all(row == rows[row["seq"] - 1] for row in proven), "as it was written, in its place"
    assert [row["seq"] for row in found.rows] == sorted({row["seq"] for row in found.rows})
    gone = {seq for first, last in found.missing for seq in range(first, last + 1)}
    end = many if seen else max((row["seq"] for row in found.rows), default=0)
    assert gone | {row["seq"] for row in found.rows} == set(range(1, end + 1))
    assert found.others == [] and not gone & {row["seq"] for row in found.rows}
    assert not seen or found.head == seen


@settings(max_examples=100, deadline=None)
@given(shared=st.integers(0, 5), mine=st.integers(1, 5), theirs=st.integers(1, 5), data=st.data())
def test_the_witnessed_history_wins_else_the_longer_one(
    shared: int, mine: int, theirs: int, data: st.DataObject
) -> None:
    begin = chain(shared)
    after = begin[-1]["digest"] if begin else GENESIS
    one, other = chain(mine, after, shared + 1), chain(theirs, after, shared + 1, kind="other")
    seen = data.draw(st.sampled_from([None, one[-1], other[-1]]))
    found = merge_history([begin + one, begin + other], seen and (seen["seq"], seen["digest"]))
    takes_mine = seen is one[-1] or (seen is None and mine >= theirs)
    assert found.rows == begin + (one if takes_mine else other)
    assert found.others == (other if takes_mine else one) and found.missing == []


def test_a_purges_redactions_win_over_older_words(tmp_path: Path) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path / 'c.db'}", "toy", tmp_path / "toy.jsonl").open()
    with catalog.write() as writer:
        writer.event("register", "sheet", {"word": "secret"})
    before = list(catalog.journal.read())
    with catalog.write() as writer:
        writer.event("purge", "patient/P", {"redacted": redact(writer.connection, {1: canonical_json({}).decode()})})
    with catalog.read() as connection:
        rows = [dict(row) for row in connection.execute(event.select().order_by(event.c.seq)).mappings()]
    for records in ([rows, before], [before, rows], [rows[1:], [*before, rows[0]]]):
        found = merge_history(records, None)
        assert found.rows == rows and not (found.changed or found.missing)
    assert merge_history([before, rows[1:]], None).rows == [*before, *rows[1:]]


@pytest.fixture
def at(tmp_path: Path) -> Place:
    """Somebody whose revocation is the last event."""
    forget()
    project = make_project(tmp_path / "toy", [*ROWS, assay("P3", "S3", "A4", sex="F", age="60")])
    make_all(project)
    set_consent(project, ["P1"], Statement("full", form="form 1"))
    set_consent(project, ["P3"], Statement("revoked", form="form 3"))
    project.catalog.engine.dispose()
    return Place(project.root, tmp_path, f"sqlite:///{project.root / 'catalog.db'}", "")


def test_half_a_last_line_is_kept_and_nobody_returns_unseen(at: Place) -> None:
    """The catalog is lost too: the revocation that the half line was is lost, and known to be."""
    whole = at.journal.read_bytes()
    at.journal.write_bytes(whole[:-40])
    catalog_lost(at)
    met = ct("-C", at.root, "status")
    assert met.code == 1 and met.err.count("`ct recover`") == 1
    done = ct("-C", at.root, "recover")
    assert done.code == 3 and "line 15 is only part of an event" in done.err and "event 15 is lost" in done.err, done
    assert (at.root / "set-aside/1/provenance.jsonl").read_bytes() == whole.splitlines(keepends=True)[-1][:-40]
    assert [row["kind"] for row in Journal(at.journal).read()][-2:] == ["consent", "recover"]
    assert ct("-C", at.root, "path", "counted/A4").code == 1


def test_what_was_lost_can_be_said_again_before_anybody_is_used(at: Place) -> None:
    catalog_lost(at)
    journal_cut(at)
    assert ct("-C", at.root, "recover").code == 3
    said = ct("-C", at.root, "consent", "set", "P3", "revoked", "--form", "form 3")
    assert said.code == 0, said
    for reading in (("status",), ("path", "counted/A4"), ("query", "SELECT * FROM assays"), ("plan",), ("cohort",)):
        assert ct("-C", at.root, *reading).code == 1, reading
    assert ct("-C", at.root, *ACCEPT).code == 0
    project = Project.find(at.root)
    assert evaluate(project).of("counted", "A4").state == "excluded"
    (last,) = (row for row in project.catalog.journal.read() if row["kind"] == "accept-loss")
    assert "all forms were looked at" in last["body"] and '"14-15":"missing"' in last["body"]
    assert ct("-C", at.root, "verify").code == 0
    assert ct("-C", at.root, *ACCEPT).code == 2, "nothing is left to be accepted"


def test_while_a_loss_holds_people_back_nobody_is_named(at: Place) -> None:
    """Any of them may have revoked consent in the lost events."""
    catalog_lost(at)
    journal_cut(at)
    (at.root / "reads/A4.txt").write_text("other\n")
    for folder in (at.root / "store/merged/S3").iterdir():
        erase(folder)
    named = re.compile(r"\b[PSA][1-4]\b")
    told = ""
    for command in (
        ("recover", "--dry-run"),
        ("recover",),
        ("recover", "--json"),
        ("verify",),
        ("verify", "--json"),
        ("register", at.root / "sheet.csv"),
        ("qc", "add", "assay/A44", "qc_fail", "--reason", "x"),
        ("consent", "set", "P33", "revoked", "--form", "form 3"),
    ):
        said = ct("-C", at.root, *command)
        assert not named.findall(said.out + said.err), said
        told += said.out
    assert told.count(WITHHELD) >= 3
    assert ct("-C", at.root, *ACCEPT).code in (0, 3)
    assert "A1" in ct("-C", at.root, "status").out


@pytest.mark.parametrize("words", [("--accept-loss",), ("--reason", "x"), ("--accept-loss", "--reason", " ")])
def test_a_loss_is_accepted_with_a_reason_only(at: Place, words: tuple[str, ...]) -> None:
    assert ct("-C", at.root, "recover", *words).code == 2


def test_lines_found_later_fill_the_gap(at: Place) -> None:
    lines = at.lines
    catalog_lost(at)
    journal_cut(at)
    assert ct("-C", at.root, "recover").code == 3
    with at.journal.open("ab") as stream:
        stream.writelines(lines[-2:])
    met = ct("-C", at.root, "status")
    assert met.code == 1 and "`ct recover`" in met.err
    done = ct("-C", at.root, "recover")
    assert done.code == 0, done
    project = Project.find(at.root)
    assert evaluate(project).of("counted", "A4").state == "excluded"
    rows = list(project.catalog.journal.read())
    assert [row["kind"] for row in rows][-4:] == ["consent", "consent", "recover", "recover"]
    assert at.lines[: len(lines)] == lines
    assert ct("-C", at.root, "verify").code == 0


def test_of_two_histories_the_other_is_set_aside_and_said(at: Place, tmp_path: Path) -> None:
    """A copy of the project went on by itself, and its journal was put into the place of ours."""
    other = tmp_path / "copy" / "toy"
    shutil.copytree(at.root, other)
    set_consent(Project.find(other), ["P2"], Statement("revoked", form="form 9"))
    set_consent(Project.find(at.root), ["P1"], Statement("pending", form="form 8"))
    forget()
    shutil.copy(other / "provenance.jsonl", at.journal)
    met = ct("-C", at.root, "status")
    assert met.code == 1 and "another event 16" in met.err and "`ct recover`" in met.err
    done = ct("-C", at.root, "recover")
    assert done.code == 3 and "second history exists: event 16 (consent by " in done.err, done
    assert "form 9" in (at.root / "set-aside/1/provenance.jsonl").read_text() and "form 8" in at.journal.read_text()
    assert ct("-C", at.root, "status").code == 1
    assert ct("-C", at.root, *ACCEPT).code == 0 and ct("-C", at.root, "verify").code == 0
    project = Project.find(at.root)
    assert evaluate(project).of("counted", "A3").state == "excluded", "who revoked there is not used here either"
    assert "form 9" in ct("-C", at.root, "consent", "list").out and disagreements(project) == []


def test_a_journal_of_other_line_ends_is_written_again(at: Place) -> None:
    """Its events are the same, so nothing else would end what is said of its size."""
    at.journal.write_bytes(at.journal.read_bytes().replace(b"\n", b"\r\n"))
    met = ct("-C", at.root, "verify")
    assert "it was edited" in met.err and met.err.count("`ct recover`") == 1, met
    done = ct("-C", at.root, "recover")
    assert done.code == 0 and "done: provenance.jsonl: rewritten" in done.err, done
    assert b"\r" not in at.journal.read_bytes() and "edited" not in ct("-C", at.root, "verify").err
    assert "nothing is lost" in ct("-C", at.root, "recover").err


def test_a_store_that_is_not_mounted_is_no_lost_result(at: Place) -> None:
    catalog_lost(at)
    journal = at.journal.read_bytes()
    (at.root / "store").rename(at.root.with_name("disk"))
    done = ct("-C", at.root, "recover")
    assert done.code == 3 and "Mount its disk" in done.err, done
    assert at.journal.read_bytes() == journal and not at.catalog.exists()
    at.root.with_name("disk").rename(at.root / "store")
    assert ct("-C", at.root, "recover").code == 0


def test_without_its_store_a_damaged_catalog_stays_where_it_is(at: Place) -> None:
    """Nothing is set aside before it is known that the rest can be done."""
    data = bytearray(at.catalog.read_bytes())
    data[100:4196] = bytes(4096)
    at.catalog.write_bytes(data)
    (at.root / "store").rename(at.root.with_name("disk"))
    done = ct("-C", at.root, "recover")
    assert done.code == 3 and "Mount its disk" in done.err, done
    assert at.catalog.read_bytes() == data and not (at.root / "set-aside").exists()
    at.root.with_name("disk").rename(at.root / "store")
    assert ct("-C", at.root, "recover").code == 0


def test_a_store_lost_for_good_is_made_by_init(at: Place) -> None:
    catalog_lost(at)
    shutil.move(at.root / "store", at.root.with_name("disk"))
    assert "`ct init" in ct("-C", at.root, "recover").err
    ct("init", at.root)
    done = ct("-C", at.root, "recover")
    assert done.code == 3 and "joined/all\tits files are gone" in done.out and "no witness" in done.err, done
    assert ct("-C", at.root, *ACCEPT).code in (0, 3)
    assert set(make_all(again(Project.find(at.root))).values()) == {"made"}
    assert evaluate(again(Project.find(at.root))).of("counted", "A4").state == "excluded"


def test_with_both_records_gone_nobody_is_used(at: Place) -> None:
    """The sheet would bring everybody back, and consents are in no sheet."""
    catalog_lost(at)
    at.journal.unlink()
    for words in (("status",), ("register", at.root / "sheet.csv")):
        met = ct("-C", at.root, *words)
        assert met.code == 1 and "the store tells of events 1 to 15" in met.err and "`ct recover`" in met.err, met
    done = ct("-C", at.root, "recover")
    assert done.code == 3 and "events 1 to 15 are lost" in done.err, done
    assert ct("-C", at.root, "register", at.root / "sheet.csv").code == 0
    assert ct("-C", at.root, "consent", "set", "P3", "revoked", "--form", "form 3").code == 0
    assert ct("-C", at.root, "status").code == 1
    assert ct("-C", at.root, *ACCEPT).code == 0
    project = Project.find(at.root)
    assert set(make_all(project).values()) == {"hit", "made"}, "all but the cohort is in the store"
    assert evaluate(again(project)).of("counted", "A4").state == "excluded"


def test_results_without_any_record_are_a_loss_too(at: Place) -> None:
    catalog_lost(at)
    at.journal.unlink()
    (at.root / "store" / NAME).unlink()
    met = ct("-C", at.root, "register", at.root / "sheet.csv")
    assert met.code == 1 and "has results" in met.err and "`ct recover`" in met.err, met
    assert ct("-C", at.root, "recover").code == 3 and ct("-C", at.root, "status").code == 1


def test_a_dry_run_writes_nothing(at: Place) -> None:
    catalog_flipped(at)
    journal_cut(at)
    before = {path: path.read_bytes() for path in at.root.rglob("*") if path.is_file()}
    said = ct("-C", at.root, "recover", "--dry-run")
    assert "would be: catalog: rebuilt" in said.err and "would be: provenance.jsonl: rewritten" not in said.out
    assert {path: path.read_bytes() for path in at.root.rglob("*") if path.is_file()} == before


def test_a_process_does_not_write_into_a_replaced_catalog(at: Place) -> None:
    project = Project.find(at.root)
    assert project.catalog.version()
    with sqlite3.connect(at.catalog) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(at.catalog, at.root / "copy.db")
    os.replace(at.root / "copy.db", at.catalog)
    with pytest.raises(CatalogError, match="taken away or replaced while it was in use"):
        set_consent(project, ["P1"], Statement("full", form="form 5"))
    assert b"form 5" not in at.journal.read_bytes()


def test_the_words_of_a_purged_person_come_back_from_no_journal(tmp_path: Path) -> None:
    """Somebody put the lines of before the purge into the place of those that it left."""
    kept: dict[int, bytes] = {}
    replace = Journal.replace

    def keeping(journal: Journal, rows: Any) -> None:
        kept.update({number: line for number, line, _ in journal.lines()})
        replace(journal, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "replace", keeping)
        project = lived_and_purged(tmp_path / "toy")
    journal = project.root / "provenance.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert any(word("P1").encode() in line or word("P2").encode() in line for line in kept.values())
    for is_lost in (False, True):
        now = enumerate(journal.read_bytes().splitlines(keepends=True), 1)
        journal.write_bytes(b"".join([kept.get(number, line) for number, line in now]))
        if is_lost:
            for path in project.root.glob("catalog.db*"):
                path.unlink()
        done = ct("-C", project.root, "recover")
        assert done.code == 0, done
        assert mentioned(project.root, word("P1")) | mentioned(project.root, word("P2")) == set(), is_lost
        assert ct("-C", project.root, "verify").code == 0
        assert len(lines) < len(journal.read_bytes().splitlines())
        project = again(project)


def test_a_killed_recovery_loses_nothing_and_can_be_ended(at: Place, tmp_path: Path) -> None:
    """The catalog is damaged, and only it has the last two events."""
    catalog_table_gone(at)
    journal_cut(at)
    first = tmp_path / "first"
    shutil.copytree(at.root, first)
    names = killed(first, tmp_path, None)
    whole = Journal(first / "provenance.jsonl")
    every = [row["digest"] for row in whole.read()][:-1]
    last = len(names) - 1
    near = {at + more for at, name in enumerate(names) if name in ("os.rename", "commit") for more in (0, 1)}
    for moment in sorted({0, *near, last} - {last + 1}):
        place = tmp_path / f"at{moment}" / "toy"
        shutil.copytree(at.root, place)
        killed(place, tmp_path, moment)
        done = ct("-C", place, "recover")
        rows = [row["digest"] for row in Journal(place / "provenance.jsonl").read() if row["kind"] != "recover"]
        assert done.code == 0 and rows == every, (moment, names[moment], done)
        assert ct("-C", place, "verify").code == 0, (moment, names[moment])


def killed(place: Path, folder: Path, moment: int | None) -> list[str]:
    """`ct recover` in a child, killed right before that moment; the names of its moments."""

    def work() -> int:
        forget()
        Moments(folder / "moments", moment).watch()
        return ct("-C", place, "recover").code

    code = forked(work, folder / "log")
    assert code == (0 if moment is None else -signal.SIGKILL), (folder / "log").read_text()
    return (folder / "moments").read_text().splitlines()


WRITES = """
import sys
from ctcore.project import Project
from pathlib import Path
catalog = Project.find(Path(sys.argv[1])).catalog
for number in range(150):
    with catalog.write() as writer:
        writer.event("look", "x", number)
"""


def test_who_opens_while_others_write_sees_no_loss(at: Place) -> None:
    """Catalog, journal and witness are written one after the other: a look between must not take that for a loss."""
    writers = [subprocess.Popen([sys.executable, "-c", WRITES, str(at.root)]) for _ in range(2)]
    looked = 0
    while any(one.poll() is None for one in writers):
        opened = Project.find(at.root).catalog
        assert opened.notes == [] and opened.divergence is None
        opened.engine.dispose()
        looked += 1
    assert [one.returncode for one in writers] == [0, 0] and looked > 5
    assert len(at.lines) == 15 + 300 and at.rows() == at.told()


def test_a_witness_is_whole_or_none(tmp_path: Path) -> None:
    Store(tmp_path / "store").ensure()
    witness = Witness(tmp_path / "store" / NAME)
    assert witness.read() is None
    witness.write(LastEvent(3, "a" * 64, 100))
    assert witness.read() == LastEvent(3, "a" * 64, 100)
    writing = [threading.Thread(target=witness.write, args=(LastEvent(n, "b" * 64, n),)) for n in range(5)]
    for one in writing:
        one.start()
    for one in writing:
        one.join()
    assert witness.read() is not None
    whole = witness.path.read_text()
    for text in ("", "\0" * 80, whole[:-1], whole.replace(" ", "  ", 1), whole.replace("b", "c", 1), f"1{whole[1:]}"):
        witness.path.write_text(text)
        assert witness.read() is None, text
    Witness(tmp_path / "nowhere" / NAME).write(LastEvent(1, "a" * 64, 1))
    assert not (tmp_path / "nowhere").exists(), "no store is made for it"
    (tmp_path / "empty").mkdir()
    Witness(tmp_path / "empty" / NAME).write(LastEvent(1, "a" * 64, 1))
    assert list((tmp_path / "empty").iterdir()) == [], "nor where its disk should be mounted"


def test_a_log_without_its_catalog_is_set_aside(at: Place) -> None:
    with sqlite3.connect(at.catalog) as reading:
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM event").fetchall()
        set_consent(again(Project.find(at.root)), ["P1"], Statement("pending", form="form 9"))
        log = at.root / "catalog.db-wal"
        content = log.read_bytes()
        shutil.copy(log, at.root / "kept")
    catalog_lost(at)
    (at.root / "kept").rename(log)
    done = ct("-C", at.root, "recover")
    assert done.code == 0 and content and (at.root / "set-aside/1/catalog.db-wal").read_bytes() == content, done
    assert at.rows() == at.told() and ct("-C", at.root, "verify").code == 0


def test_a_journal_of_nothing_but_other_lines_is_no_circle(tmp_path: Path) -> None:
    root = tmp_path / "toy"
    project = make_project(root)
    project.catalog.engine.dispose()
    for path in (*root.glob("catalog.db*"), root / "store" / NAME):
        path.unlink()
    (root / "provenance.jsonl").write_text("something else\n")
    forget()
    met = ct("-C", root, "status")
    assert met.code == 1 and "`ct recover`" in met.err, met
    assert ct("-C", root, "recover").code in (0, 3)
    assert (root / "set-aside/1/provenance.jsonl").read_text() == "something else\n"
    assert "`ct recover` brings" not in ct("-C", root, "register", root / "sheet.csv").err


def test_a_copied_folder_does_not_recover_the_others_catalog(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_POSTGRES_URL", postgres_url)
    project = make_project(tmp_path / "toy")
    shutil.copytree(project.root, tmp_path / "copy")
    set_consent(project, ["P1"], Statement("revoked", form="form 1"))
    before = list(project.catalog.journal.read())
    for words in (("recover",), ("recover", "--dry-run")):
        said = ct("-C", tmp_path / "copy", *words)
        assert said.code == 1 and "two folders have the ID toy" in said.err, said
    assert list(project.catalog.journal.read()) == before and ct("-C", project.root, "status").code == 3


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_journal_that_is_no_file_is_named_at_once(at: Place, make: Callable[[Path], None]) -> None:
    at.journal.rename(at.journal.with_name("kept"))
    make(at.journal)
    for command in ("status", "recover"):
        said = ct("-C", at.root, command)
        assert said.code == 1 and "is not a regular file: move it away" in said.err, command


def test_a_lost_registration_costs_only_what_belongs_to_it(at: Place) -> None:
    """Results and files of people whom nobody knows any more stand for nothing; patients of consents are registered."""
    lines = at.lines
    registered = next(number for number, line in enumerate(lines) if b'"kind":"register"' in line)
    catalog_lost(at)
    at.journal.write_bytes(b"".join([*lines[:registered], *lines[registered + 1 :]]))
    done = ct("-C", at.root, "recover")
    assert done.code == 3 and f"event {registered + 1}: lost from both records" in done.err, done
    assert ct("-C", at.root, *ACCEPT).code in (0, 3)
    project = Project.find(at.root)
    with project.catalog.read() as connection:
        assert set(connection.execute(select(entity.c.id)).scalars()) == {"P1", "P3"}
        assert connection.execute(select(func.count()).select_from(event)).scalar() == len(lines) - 1 + 3
    assert ct("-C", at.root, "verify").code == 0
    assert ct("-C", at.root, "register", at.root / "sheet.csv").code == 0
    with at.journal.open("ab") as stream:
        stream.write(lines[registered])
    assert ct("-C", at.root, "recover").code in (0, 3), "found later, when others have its number"


def test_who_revoked_stays_out_where_the_registration_is_lost(at: Place) -> None:
    """The revocation is on record, and so is a failed assay of somebody else: nobody registers either away."""
    late = [assay("P4", "S4", "A5", sex="F", age="60"), assay("P5", "S5", "A6", sex="F", age="60")]
    project = again(Project.find(at.root))
    add(project, late)
    project = again(project)
    make_all(project)
    table = project.store.root / ct("-C", at.root, "path", "joined/all").out.strip()
    assert "S4" in (table / "table.tsv").read_text()
    set_consent(project, ["P4"], Statement("revoked", form="form 4"))
    fail(project, "A6")
    project.catalog.engine.dispose()
    lines = at.lines
    registered = next(number for number, line in enumerate(lines) if b'"id":"P4"' in line)
    catalog_lost(at)
    at.journal.write_bytes(b"".join([*lines[:registered], *lines[registered + 1 :]]))
    done = ct("-C", at.root, "recover")
    assert done.code == 3 and f"event {registered + 1}: lost from both records" in done.err, done
    assert "1 patient registered again" in done.err and "P4" not in done.out + done.err, done
    assert ct("-C", at.root, *ACCEPT).code in (0, 3)
    assert disagreements(Project.find(at.root)) == []
    for step in ("joined", "merged"):
        for command in (
            ("path", f"{step}/{'all' if step == 'joined' else 'S4'}"),
            ("status", "--json"),
            ("verify",),
            ("export", "-", "--format", "json"),
        ):
            said = ct("-C", at.root, *command)
            assert "S4" not in said.out and (command[0] != "path" or said.code == 2), said
    write_sheet(at.root, [*ROWS, assay("P3", "S3", "A4", sex="F", age="60"), *late])
    assert ct("-C", at.root, "register", at.root / "sheet.csv").code == 0
    project = again(Project.find(at.root))
    assert disagreements(project) == []
    found = evaluate(project)
    assert found.of("counted", "A5").state == "excluded" == found.of("counted", "A6").state
    make_all(project)
    (shown,) = (ct("-C", at.root, "path", "joined/all", "table").out.split(),)
    assert not {"S3", "S4", "S5"} & set(Path(shown[0]).read_text().split())
    project.catalog.engine.dispose()
    with at.journal.open("ab") as stream:
        stream.write(lines[registered])
    assert ct("-C", at.root, "recover").code in (0, 3), "found later"
    project = again(Project.find(at.root))
    assert disagreements(project) == [] and evaluate(project).of("counted", "A5").state == "excluded"
    assert ct("-C", at.root, "verify").code == 0
