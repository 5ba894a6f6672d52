"""What was accepted as lost and turns up later takes its place, and what was written meanwhile keeps its own."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from ctcore.catalog.event_log import check_chain
from ctcore.catalog.replay import Event, Replay
from ctcore.catalog.row_numbers import FREE
from ctcore.catalog.tables import artifact, event, materialization, metadata, setting
from ctcore.deletion.proof import check
from ctcore.deletion.purge import list_purges, remove
from ctcore.governance.consent import Statement, restore, set_consent
from ctcore.governance.qc import Choice, QcEntry, resolve
from ctcore.governance.qc import add as add_qc
from ctcore.inputs.current import forget
from ctcore.intake.raw_files import look
from ctcore.intake.results import ResultEntry, analysis_of, record
from ctcore.integrity.catalog_check import disagreements
from ctcore.integrity.recover import recover
from ctcore.integrity.verify import verify
from ctcore.project import Project
from ctcore.staleness.accept import KINDS, accept, propose
from ctcore.staleness.verdicts import evaluate
from ctcore.store.digest import canonical_json
from tests.deletion.test_purge import REVOKED, STEPS, built, cohort, decision, holders, word
from tests.helpers.killing import Moments, forked
from tests.helpers.kit import ROWS, TOML, add, again, assay, fail, make_all, make_project, reasons
from tests.helpers.postgres import Server
from tests.helpers.shell import ct

ALL = ("P0", "P1", "P2")
ANALYSIS = '\n[analyses.pathology]\nlevel = "assay"\ncolumns.grade = {}\n'


Keep = Callable[[Project], Callable[[], None]]
"""Keeps a copy of the catalog; what it returns puts that in its place."""


def keep_file(project: Project) -> Callable[[], None]:
    root, before = project.root, project.root.with_name("before")
    before.mkdir()
    for path in root.glob("catalog.db*"):
        shutil.copy(path, before)

    def put_back() -> None:
        for path in root.glob("catalog.db*"):
            path.unlink()
        shutil.copytree(before, root, dirs_exist_ok=True)

    return put_back


@pytest.fixture
def keep_database(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keep]:
    """The project that the test makes has its catalog on PostgreSQL."""
    with ExitStack() as stack:
        url = stack.enter_context(postgres.fresh())
        monkeypatch.setenv("CT_POSTGRES_URL", url)

        def keep(_project: Project) -> Callable[[], None]:
            forget()
            copy = stack.enter_context(postgres.fresh(url))
            return lambda: monkeypatch.setenv("CT_POSTGRES_URL", copy)

        yield keep
        forget()


def lost(project: Project, meanwhile: Callable[[Project], object], keep: Keep = keep_file) -> list[bytes]:
    """Catalog and journal are put back as they were before something happened, and the loss is accepted. Returns the
    lines that are lost."""
    project.catalog.engine.dispose()
    root, put_back = project.root, keep(project)
    before = (root / "provenance.jsonl").read_bytes()
    meanwhile(again(project))
    project.catalog.engine.dispose()
    every = (root / "provenance.jsonl").read_bytes()
    (root / "provenance.jsonl").write_bytes(before)
    put_back()
    forget()
    assert ct("-C", root, "recover", "--accept-loss", "--reason", "the forms were looked at").code in (0, 3)
    return every.splitlines(keepends=True)[before.count(b"\n") :]


def found(project: Project, lines: list[bytes]) -> str:
    """They are appended to the journal, and put in their place. What `ct recover` said."""
    project.catalog.engine.dispose()
    with (project.root / "provenance.jsonl").open("ab") as stream:
        stream.writelines(lines)
    forget()
    said = ct("-C", project.root, "recover")
    assert said.code == 0, said
    return said.err


def all_agrees(project: Project, lines: list[bytes]) -> list[dict[str, Any]]:
    """Both records have every event, and the tables are what they say. The events."""
    project = again(project)
    rows = list(project.catalog.journal.read())
    assert check_chain(iter(rows)) == [] and disagreements(project) == []
    assert {json.loads(line)["digest"] for line in lines} <= {row["digest"] for row in rows}
    said = ct("-C", project.root, "verify")
    assert said.code == 0, said
    assert "nothing is lost" in ct("-C", project.root, "recover").err
    return rows


def purged(patient: str) -> Callable[[Project], object]:
    return lambda project: remove(project, patient, "asked", patient)


def nobody_is_back(project: Project, *patients: str) -> None:
    project = again(project)
    for patient in patients:
        assert holders(project.root, patient) == []
    with project.catalog.read() as connection:
        told = [str(row) for table in metadata.sorted_tables for row in connection.execute(select(table))]
    assert not [row for row in told if any(word(patient) in row for patient in patients)]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Three patients, with results and QC of all in one event each; all of them have taken their consent back."""
    made = built(tmp_path / "toy", [[1], [1], [1]])
    toml = made.root / "ct.toml"
    toml.write_text(toml.read_text() + ANALYSIS)
    made, said = again(made), {f"A{who[1]}00": word(who) for who in ALL}
    record(made, analysis_of(made, "pathology"), [ResultEntry(who, {"grade": text}) for who, text in said.items()])
    add_qc(made, [QcEntry("assay", who, "qc_warn", text) for who, text in said.items()])
    set_consent(made, list(ALL), REVOKED)
    return made


def both_are_proved(project: Project, *patients: str) -> None:
    some = list_purges(again(project))
    assert [one["patient"] for one in some] == [*patients] and all(one["ended_at"] for one in some)
    assert ct("-C", project.root, "purge", "--list").out.count("asked") == len(patients)
    for one in some:
        assert check(again(project), one["id"]).findings == (), one
    nobody_is_back(project, *patients)


@pytest.mark.parametrize(
    ("how", "other"),
    [("lines", "P0"), ("one number", "P0"), ("journal", "P0"), ("catalog lost", "P0"), ("lines", "P1")],
)
def test_two_purges_of_two_histories_are_both_on_record(project: Project, how: str, other: str) -> None:
    had = (project.root / "provenance.jsonl").read_bytes().splitlines(keepends=True)
    lines = lost(project, purged("P1"))
    if how == "one number":  # as an earlier version gave it
        with project.catalog.engine.connect() as connection, connection.begin():
            connection.execute(setting.delete().where(setting.c.name == FREE))
        forget()
    purged(other)(again(project))
    if how == "catalog lost":
        for path in project.root.glob("catalog.db*"):
            path.unlink()
    said = found(project, [*had, *lines] if how == "journal" else lines)
    assert ("the later one becomes purge 2" in said) == (how == "one number"), said
    rows = all_agrees(project, lines)
    assert [row["subject"] for row in rows if row["kind"] == "purge"] == ["patient/P1", f"patient/{other}"]
    both_are_proved(project, "P1", other)
    told = json.loads(rows[-1]["body"])
    begun = [row["seq"] for row in rows if row["kind"] == "purge"]
    assert told.get("purges") == ({"1": begun[0], "2": begun[1]} if how == "one number" else None)
    assert len(told.get("redacted", {})) == (3 if other == "P0" else 0), "who is registered, results, QC"
    purged("P2")(again(project))
    both_are_proved(project, "P1", other, "P2")
    all_agrees(project, lines)


def test_a_purge_is_listed_as_it_was_when_it_was_made(project: Project) -> None:
    """Both removed the cohort's makings: a making has one tombstone, of the later purge."""
    listed: list[Any] = []

    def told(patient: str) -> Callable[[Project], object]:
        def purge(project: Project) -> None:
            purged(patient)(project)
            listed.append(list_purges(again(project))[-1])

        return purge

    lines = lost(project, told("P1"))
    told("P0")(again(project))
    found(project, lines)
    shown = [(one["patient"], one["makings"], one["size"]) for one in list_purges(again(project))]
    assert shown == [(one["patient"], one["makings"], one["size"]) for one in listed]


@pytest.mark.parametrize("is_restored", [False, True])
def test_a_lost_purge_found_after_remaking_is_proved(project: Project, is_restored: bool) -> None:
    """What is gone was found to be damaged meanwhile; with `is_restored` they gave their consent again."""
    lines = lost(project, purged("P1"))
    for who in ALL if is_restored else ("P0", "P2"):
        restore(again(project), who, decision())
    verify(again(project))
    make_all(again(project))
    before = {one.node: one.state for one in evaluate(again(project)).listed("heard")}
    found(again(project), lines)
    all_agrees(project, lines)
    (one,) = list_purges(again(project))
    assert check(again(project), one["id"]).findings == ()
    if not is_restored:
        assert {one.node: one.state for one in evaluate(again(project)).listed("heard")} == before
        nobody_is_back(project, "P1")
    assert "failed" not in make_all(again(project)).values()
    assert check(again(project), one["id"]).findings == ()


def test_two_purges_of_two_histories_on_postgresql(tmp_path: Path, keep_database: Keep) -> None:
    project = built(tmp_path / "toy", [[1], [1]])
    set_consent(project, ["P0", "P1"], REVOKED)
    lines = lost(project, purged("P1"), keep_database)
    purged("P0")(again(project))
    found(project, lines)
    all_agrees(project, lines)
    both_are_proved(project, "P1", "P0")


def test_an_event_that_is_redacted_half_is_seen_and_made_whole(project: Project) -> None:
    """Two records that agree, and of which neither has what one purge took out."""
    lines = lost(project, purged("P1"))
    purged("P0")(again(project))
    rows = [json.loads(line) for line in lines]
    project = again(project)
    with project.catalog.engine.connect() as connection, connection.begin():
        connection.execute(event.insert(), [{**row, "body": canonical_json(row["body"]).decode()} for row in rows])
        project.catalog.journal.rewrite(connection)
    forget()
    assert word("P1") in (project.root / "provenance.jsonl").read_text()
    said = ct("-C", project.root, "verify")
    assert said.code == 3 and "event 1: holds values that a purge removed" in said.out, said
    assert "with the redactions of one purge, but not of another" in ct("-C", project.root, "recover").err
    all_agrees(project, lines)
    both_are_proved(project, "P1", "P0")


@pytest.mark.parametrize("body", ["{}", '{"purge":1,"patient":"P1","removed":[{}]}', "[]", '{"purge":1,"redacted":7}'])
def test_a_purge_event_that_nobody_understands_is_said(tmp_path: Path, body: str) -> None:
    project = built(tmp_path / "toy", [[1]])
    with project.catalog.engine.connect() as connection, connection.begin():
        last = connection.execute(select(event.c.seq, event.c.digest).order_by(event.c.seq.desc())).first()
        assert last is not None
        row = {
            "seq": last.seq + 1,
            "at": "2026",
            "actor": "x",
            "kind": "purge",
            "subject": "x",
            "previous": last.digest,
        }
        connection.execute(event.insert(), [{**row, "body": body, "digest": "0" * 64}])
        project.catalog.journal.rewrite(connection)
    forget()
    assert ct("-C", project.root, "verify").code == 3
    for words in (("recover", "--dry-run"), ("recover",), ("recover", "--accept-loss", "--reason", "looked at")):
        assert ct("-C", project.root, *words).code in (0, 3), words
    assert ct("-C", project.root, "purge", "--list").code == 0


def test_killed_with_only_the_journal_it_holds_nobody_back(project: Project, tmp_path: Path) -> None:
    lines = lost(project, purged("P1"))
    purged("P0")(again(project))
    again(project).catalog.engine.dispose()
    for path in project.root.glob("catalog.db*"):
        path.unlink()
    with (project.root / "provenance.jsonl").open("ab") as stream:
        stream.writelines(lines)
    shutil.copytree(project.root, tmp_path / "whole")

    def recovered(root: Path, at: int | None) -> int:
        def work() -> int:
            forget()
            Moments(tmp_path / "moments", at).watch()
            recover(Project.find(root))
            return 0

        return forked(work, tmp_path / "log")

    assert recovered(tmp_path / "whole", None) == 0
    names = (tmp_path / "moments").read_text().splitlines()
    journal = next(at for at, name in enumerate(names) if name == "os.rename")
    assert recovered(project.root, journal + 1) == -9 and not (project.root / "catalog.db").exists()
    said = ct("-C", project.root, "recover")
    assert said.code == 0 and "accept-loss" not in said.err, said
    all_agrees(project, lines)
    both_are_proved(project, "P1", "P0")


def numbered(*events: tuple[str, dict[str, Any]]) -> dict[int, tuple[str, str | None]]:
    """Number → patient and end of the purges that such events tell of; each begins and ends at its own."""
    replay, head = Replay(), {"reason": "asked", "raw": False, "removed": []}
    for seq, (kind, body) in enumerate(events, 1):
        more = head | ({"redacted": {}} if kind == "purge" else {})
        replay.take([Event(seq, f"at {seq}", "x", kind, "", json.dumps(more | body))])
    return {row["id"]: (row["patient"], row["ended_at"]) for row, _ in replay.tables["purge"].values()}


def test_of_two_purges_with_one_number_each_ends_by_its_event() -> None:
    first, second = ("purge", {"purge": 1, "patient": "P1"}), ("purge", {"purge": 1, "patient": "P2"})
    ended, again = ("purged", {"purge": 1}), ("recover", {"purges": {"1": 1, "2": 2}})
    assert numbered(first, second, ended) == {1: ("P1", None), 2: ("P2", "at 3")}
    assert numbered(first, second, again, ended) == {1: ("P1", "at 4"), 2: ("P2", None)}
    assert numbered(first, second, again, ("purged", {"purge": 2})) == {1: ("P1", None), 2: ("P2", "at 4")}
    assert numbered(first, ended, second, ended, again, ("purge", {"purge": 3, "patient": "P3"}), ended) == {
        1: ("P1", "at 7"),
        2: ("P2", "at 4"),
        3: ("P3", None),
    }


def said_often(project: Project) -> None:
    for number in range(4):
        set_consent(project, ["P1"], Statement("full", form=f"form {number}"))


@pytest.mark.parametrize("first", [0, 1, 3])
def test_a_loss_found_in_part_stays_accepted_for_the_rest(tmp_path: Path, first: int) -> None:
    project = make_project(tmp_path / "toy")
    lines = lost(project, said_often)
    assert len(lines) == 4
    said = found(project, lines[first : first + 1])
    assert f"lacks event {json.loads(lines[first])['seq']}" in said and "accept-loss" not in said
    all_agrees(project, lines[first : first + 1])
    set_consent(again(project), ["P2"], Statement("full", form="form 9"))
    found(again(project), lines[2:])
    all_agrees(project, lines[2:])
    found(again(project), lines)
    rows = all_agrees(project, lines)
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))


def test_more_than_was_accepted_is_asked_for_and_only_that(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    lost(project, said_often)
    journal = project.root / "provenance.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    rows = list(map(json.loads, lines))
    gap = next(row["seq"] for row, after in pairwise(rows) if after["seq"] > row["seq"] + 1)
    again(project).catalog.engine.dispose()
    for path in project.root.glob("catalog.db*"):
        path.unlink()
    journal.write_bytes(b"".join(line for line, row in zip(lines, rows, strict=True) if row["seq"] != gap))
    forget()
    said = ct("-C", project.root, "recover")
    assert (
        said.code == 3
        and f"event {gap}: lost from both records" in said.err
        and "events" not in said.err.split("lost from")[0]
    )


def grown(mark: str, *names: str) -> Callable[[Project], object]:
    """New patients, with everything made, QC that fails and is taken back, differences accepted, results recorded."""

    def grow(project: Project) -> None:
        for name in names:
            if not (reads := project.root / f"reads/A{name}.txt").exists():
                reads.write_text(name * int(name))
            add(project, [assay(f"P{name}", f"S{name}", f"A{name}", sex="F", library=word(f"P{name}"))])
        make_all(again(project))
        for name in names:
            fail(project, f"A{name}")
            resolve(project, Choice(entity=("assay", f"A{name}")), "sequenced again")
            (project.root / f"reads/A{name}.txt").write_text(name * 10 * int(name) + mark)
            record(project, analysis_of(project, "pathology"), [ResultEntry(f"A{name}", {"grade": f"G{len(names)}"})])
        look(project)
        keys = {"counted": {f"A{name}" for name in names}}
        accept(project, propose(again(project), keys, frozenset(KINDS)), "the same reads")
        make_all(again(project))

    return grow


def made_of(project: Project) -> dict[str, str]:
    """Node → what its file says, of all that is fresh."""
    project = again(project)
    with project.catalog.read() as connection:
        rows = connection.execute(
            select(artifact.c.asset, artifact.c.partition, materialization.c.folder).join(
                materialization, materialization.c.id == artifact.c.materialization
            )
        ).all()
    folders = {f"{row.asset}/{row.partition}": project.store.root / row.folder for row in rows}
    return {node: next(place.glob("[!.]*.t*")).read_text() for node, place in folders.items()}


@pytest.mark.parametrize("later", [("7",), ("8",), ("7", "8")])
def test_what_was_made_meanwhile_keeps_its_own_numbers(tmp_path: Path, later: tuple[str, ...]) -> None:
    numbers_of_their_own(tmp_path, later, keep_file)


def test_so_it_does_on_postgresql(tmp_path: Path, keep_database: Keep) -> None:
    numbers_of_their_own(tmp_path, ("8", "7"), keep_database)


def numbers_of_their_own(tmp_path: Path, later: tuple[str, ...], keep: Keep) -> None:
    project = make_project(tmp_path / "toy", toml=TOML + ANALYSIS)
    make_all(project)
    lines = lost(project, grown("x", "8"), keep)
    grown("yy", *later)(again(project))
    before = made_of(project)
    found(again(project), lines)
    all_agrees(project, lines)
    for node, text in made_of(project).items():
        assert text == before.get(node, text), node
    make_all(again(project))
    assert set(make_all(again(project))) == set() and reasons(again(project)) == {}
    for name in {"8", *later}:
        counted = made_of(project)[f"counted/A{name}"]
        assert int(counted.split()[0]) in (int(name), 10 * int(name) + 1, 10 * int(name) + 2), name
    set_consent(again(project), ["P8"], REVOKED)
    purged("P8")(again(project))
    nobody_is_back(project, "P8")
    all_agrees(project, lines)


def test_what_was_made_from_unrecorded_results_is_purged(tmp_path: Path) -> None:
    """Its own sidecar names nobody who is inside, and no making leads to it. That of an assay whose registration is
    lost goes too: whose it is, nobody can tell then."""
    counts = "f\"{len(call.one('all')['words'].read_text().splitlines()) > 3}\\n\""
    steps = STEPS.replace(counts, "call.one('all')['words'].read_text()")
    assert steps != STEPS
    rows = cohort(tmp_path / "toy", [[1], [1], [1]])
    project = make_project(tmp_path / "toy", rows[:2], steps=steps)
    make_all(project)

    def grown(project: Project) -> None:
        add(project, rows)
        make_all(again(project))

    lines = lost(project, grown)
    assert len(list(project.store.root.glob("report/all/*/said.txt"))) == 2, "one of them is in no making"
    set_consent(again(project), ["P1"], REVOKED)
    purged("P1")(again(project))
    assert holders(project.root, "P1") == []
    with (project.root / "provenance.jsonl").open("ab") as stream:
        stream.writelines(lines)
    said = ct("-C", project.root, "recover")
    ((number, ended),) = [(one["id"], one["ended_at"][:10]) for one in list_purges(again(project))]
    gone = f"\tpurged on {ended} (purge {number}): it is not in the ledger any more"
    unknown = "\tits files are gone: it is not in the ledger any more"
    assert said.code == 3 and said.out.splitlines()[1:] == [
        *(f"{node}{unknown}" for node in ("heard/A200", "merged/S20")),
        *(f"{node}{gone}" for node in ("joined/all", "few/all", "report/all")),
    ]
    assert holders(project.root, "P1") == []


def test_a_making_of_another_history_says_the_purge(tmp_path: Path) -> None:
    """They had one folder; a making of after the purge, whose files are gone, has lost them otherwise."""
    project = make_project(tmp_path / "toy")

    def grown(project: Project) -> None:
        make_all(again(project))

    lines = lost(project, grown)
    make_all(again(project))
    set_consent(again(project), ["P2"], REVOKED)
    purged("P2")(again(project))
    (number,) = [one["id"] for one in list_purges(again(project))]
    restore(again(project), "P2", decision())
    add(again(project), ROWS)
    make_all(again(project))
    for folder in (project.store.root / "merged/S2").iterdir():
        folder.chmod(0o755)
        shutil.rmtree(folder)
    with (project.root / "provenance.jsonl").open("ab") as stream:
        stream.writelines(lines)
    for path in project.root.glob("catalog.db*"):
        path.unlink()
    forget()
    said = ct("-C", project.root, "recover")
    rows = [line.split("\t") for line in said.out.splitlines()[1:]]
    after, before = [why.partition(":")[0] for node, why in rows if node == "merged/S2"]
    assert before.startswith("purged on ") and before.endswith(f"(purge {number})") and after == "its files are gone"


def test_a_purge_found_after_a_recovery_is_proved(project: Project) -> None:
    """The catalog is lost, and the journal is the one from before the purge: its makings come back without files. When
    the lines of the purge turn up, it has a tombstone for each of them."""
    root = project.root
    before = (root / "provenance.jsonl").read_bytes()
    set_consent(project, ["P1"], REVOKED)
    purged("P1")(again(project))
    project.catalog.engine.dispose()
    lines = (root / "provenance.jsonl").read_bytes().splitlines(keepends=True)[before.count(b"\n") :]
    for path in root.glob("catalog.db*"):
        path.unlink()
    (root / "provenance.jsonl").write_bytes(before)
    forget()
    assert ct("-C", root, "recover").code == 3
    found(project, lines)
    assert check(again(project), 1).findings == ()
    all_agrees(project, lines)
    nobody_is_back(project, "P1")
