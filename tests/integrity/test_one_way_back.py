"""Whatever is lost of catalog, journal and store, one at a time and two at once: what is said, the one command, and
what is true after it. `docs/losses.md` has the table of what is tried here, and is held to it."""

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from ctcore.catalog import engine as catalogs
from ctcore.catalog.event_log import Journal, check_chain, event_digest
from ctcore.catalog.tables import event
from ctcore.catalog.witness import NAME
from ctcore.governance.consent import Statement, set_consent
from ctcore.inputs.current import forget
from ctcore.integrity.catalog_check import disagreements
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import ROWS, again, assay, fail, make_all, make_project
from tests.helpers.postgres import Server
from tests.helpers.shell import ROOT, ct

REVOKED = "A4"  # of P3, whose revocation is the last event
WORD = "`ct recover`"
PAGE = ROOT / "docs" / "losses.md"


@dataclass
class Place:
    """A project that is about to lose something. `older`: catalog and journal as they were in the middle."""

    root: Path
    older: Path
    url: str
    older_url: str

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    @property
    def journal(self) -> Path:
        return self.root / "provenance.jsonl"

    @property
    def lines(self) -> list[bytes]:
        return self.journal.read_bytes().splitlines(keepends=True)

    @property
    def catalog(self) -> Path:
        return self.root / "catalog.db"

    def sql(self, *statements: str) -> None:
        made = catalogs.Catalog(self.url, "toy", self.journal).engine
        with made.connect() as connection, connection.begin():
            for one in statements:
                connection.execute(text(one))
        made.dispose()

    def rows(self) -> set[str]:
        """The digests of the events that the catalog has, where they can be read."""
        if self.is_sqlite and not self.catalog.exists():
            return set()
        made = catalogs.Catalog(self.url, "toy", self.journal).engine
        try:
            with made.connect() as connection:
                found = [dict(row) for row in connection.execute(event.select()).mappings()]
            return {row["digest"] for row in found if event_digest(row) == row["digest"]}
        except SQLAlchemyError:  # it is damaged
            return set()
        finally:
            made.dispose()

    def told(self) -> set[str]:
        """Those that the journal has."""
        if not self.journal.exists():
            return set()
        rows = (row for _, _, row in Journal(self.journal).lines() if row is not None)
        return {row["digest"] for row in rows if event_digest(row) == row["digest"]}


Damage = Callable[[Place], None]


def catalog_lost(at: Place) -> None:
    if at.is_sqlite:
        for path in at.root.glob("catalog.db*"):
            path.unlink()
    else:
        at.sql("DROP SCHEMA ct_toy CASCADE")


def catalog_older(at: Place) -> None:
    if at.is_sqlite:
        shutil.copy(at.older / "catalog.db", at.catalog)
    else:
        at.url = at.older_url


def catalog_truncated(at: Place) -> None:
    content = at.catalog.read_bytes()
    at.catalog.write_bytes(content[: len(content) // 2 // 4096 * 4096])


def catalog_flipped(at: Place) -> None:
    content = bytearray(at.catalog.read_bytes())
    for page in range(4096, len(content), 4096):
        content[page] ^= 0xFF
    at.catalog.write_bytes(content)


def catalog_table_gone(at: Place) -> None:
    at.sql("DROP TABLE consent")


def catalog_log_lost(at: Place) -> None:
    for path in at.root.glob("catalog.db-*"):
        path.unlink()


def catalog_row_edited(at: Place) -> None:
    at.sql("UPDATE consent SET status = 'full'")


def catalog_events_removed(at: Place) -> None:
    at.sql("DELETE FROM event WHERE seq IN (2, 3)")


def journal_torn(at: Place) -> None:
    at.journal.write_bytes(at.journal.read_bytes()[:-40])


def journal_cut(at: Place) -> None:
    at.journal.write_bytes(b"".join(at.lines[:-2]))


def journal_edited(at: Place) -> None:
    lines = at.lines
    lines[1] = lines[1].replace(b'"at":"2', b'"at":"3')
    at.journal.write_bytes(b"".join(lines))


def journal_reordered(at: Place) -> None:
    lines = at.lines
    at.journal.write_bytes(b"".join([*lines[:2], lines[3], lines[2], *lines[4:]]))


def journal_lines_removed(at: Place) -> None:
    lines = at.lines
    at.journal.write_bytes(b"".join(lines[:3] + lines[5:]))


def journal_older(at: Place) -> None:
    shutil.copy(at.older / "provenance.jsonl", at.journal)


def journal_lost(at: Place) -> None:
    at.journal.unlink()


def journal_deep(at: Place) -> None:
    with at.journal.open("ab") as stream:
        stream.write(b"[" * 100_000 + b"\n")


def store_partly_gone(at: Place) -> None:
    for folder in (at.root / "store/merged/S1").iterdir():
        folder.chmod(0o755)
        shutil.rmtree(folder)


def store_behind_a_link(at: Place) -> None:
    other = at.root.with_name(f"{at.root.name}-disk")
    (at.root / "store").rename(other)
    (at.root / "store").symlink_to(other)


def store_folder_replaced(at: Place) -> None:
    (folder,) = (path for path in (at.root / "store/counted/A1").iterdir() if path.is_dir())
    folder.parent.chmod(0o755)
    folder.chmod(0o755)
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "n.txt").write_text("something else\n")


def store_witness_gone(at: Place) -> None:
    (at.root / "store" / NAME).unlink()


CATALOG: dict[str, Damage] = {
    "catalog lost": catalog_lost,
    "catalog older": catalog_older,
    "catalog truncated": catalog_truncated,
    "bytes of the catalog flipped": catalog_flipped,
    "a table of the catalog gone": catalog_table_gone,
    "write-ahead log lost": catalog_log_lost,
    "a row edited by hand": catalog_row_edited,
    "events removed from the catalog": catalog_events_removed,
}
ONLY_SQLITE = {"catalog truncated", "bytes of the catalog flipped", "write-ahead log lost"}
UNREADABLE = {"catalog lost", "catalog truncated", "bytes of the catalog flipped"}
JOURNAL: dict[str, Damage] = {
    "journal torn in its last line": journal_torn,
    "journal cut at its end": journal_cut,
    "journal edited": journal_edited,
    "journal reordered": journal_reordered,
    "lines of the journal removed": journal_lines_removed,
    "journal older": journal_older,
    "journal lost": journal_lost,
    "a line of 100,000 brackets": journal_deep,
}
STORE: dict[str, Damage] = {
    "store partly gone": store_partly_gone,
    "store behind a link": store_behind_a_link,
    "a folder of the store replaced": store_folder_replaced,
    "witness of the store gone": store_witness_gone,
}
CASES = CATALOG | JOURNAL | STORE
# With a whole catalog, these are made good by whoever comes, who says so
MADE_GOOD = {"journal torn in its last line", "journal cut at its end", "journal older", "journal lost"}
# These no cheap look can see: the next whole check does
VERIFY = {"a row edited by hand", "events removed from the catalog", "journal edited", "journal reordered"}
FIRST = (("status",), ("plan",), ("register", "sheet.csv"), ("why", "joined/all"), ("query", "SELECT 1"))


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """On SQLite: the last events are in the write-ahead log only."""
    return lives(tmp_path_factory.mktemp("lived"), "", lambda: "")


@pytest.fixture(scope="module")
def lived_on_postgres(tmp_path_factory: pytest.TempPathFactory, postgres: Server) -> Iterator[Place]:
    with postgres.fresh() as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CT_POSTGRES_URL", url)
        name = url.rpartition("/")[2]

        def copied() -> str:
            forget()
            postgres.execute(f"CREATE DATABASE {name}_older TEMPLATE {name}")
            return f"{url}_older"

        yield lives(tmp_path_factory.mktemp("lived"), url, copied)
        postgres.execute(f"DROP DATABASE {name}_older WITH (FORCE)")


def lives(folder: Path, url: str, copy_database: Callable[[], str]) -> Place:
    rows = [*ROWS, assay("P3", "S3", REVOKED, sex="F", age="60")]
    project = make_project(folder / "toy", rows)
    make_all(project)
    older = folder / "older"
    older.mkdir()
    shutil.copy(project.root / "provenance.jsonl", older)
    project.catalog.engine.dispose()
    older_url = copy_database()
    if not url:
        shutil.copy(project.root / "catalog.db", older)
        keeping = sqlite3.connect(project.root / "catalog.db")
        keeping.execute("BEGIN")
        keeping.execute("SELECT count(*) FROM event").fetchall()  # until this ends, the log is not written back
    fail(project, "A2")
    set_consent(project, ["P1"], Statement("full", form="form 1"))
    set_consent(project, ["P2"], Statement("revoked", form="form 2"))
    make_all(again(project))
    set_consent(project, ["P3"], Statement("revoked", form="form 3"))
    project.catalog.engine.dispose()
    if not url:
        shutil.copytree(project.root, folder / "with log")
        keeping.close()
    with sqlite3.connect(project.root / "catalog.db") if not url else sqlite3.connect(":memory:") as last:
        last.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Place(project.root, older, url or f"sqlite:///{project.catalog.place}", older_url)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A copy of the project, which may lose what it has."""
    monkeypatch.setattr(catalogs, "LATE_S", -1.0)
    forget()
    if request.param == "sqlite":
        yield copied(request.getfixturevalue("lived"), tmp_path)
        return
    base: Place = request.getfixturevalue("lived_on_postgres")
    server: Server = request.getfixturevalue("postgres")
    name = base.url.rpartition("/")[2]
    made = [f"{name}_{tmp_path.name[-12:].lower().replace('-', '_')}{end}" for end in ("", "o")]
    server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE '{name}%'")
    for one, of in zip(made, (name, f"{name}_older"), strict=True):
        server.execute(f'CREATE DATABASE "{one}" TEMPLATE {of}')
    shutil.copytree(base.root, tmp_path / "toy", symlinks=True)
    server.execute(f"UPDATE ct_toy.setting SET value = '{tmp_path / 'toy'}' WHERE name = 'place'", made[0])
    server.execute(f"UPDATE ct_toy.setting SET value = '{tmp_path / 'toy'}' WHERE name = 'place'", made[1])
    urls = [base.url.replace(name, one) for one in made]
    yield Place(tmp_path / "toy", base.older, *urls)
    for one in made:
        server.execute(f'DROP DATABASE "{one}" WITH (FORCE)')


def copied(base: Place, folder: Path, source: str = "toy") -> Place:
    root = folder / "toy"
    shutil.copytree(base.root.with_name(source), root, symlinks=True)
    return Place(root, base.older, f"sqlite:///{root / 'catalog.db'}", "")


@dataclass
class Course:
    """How it went: what the first command said and its exit code, and those of `ct recover`."""

    first: str
    code: int
    said: str
    lost: int
    held: bool
    problems: str

    @property
    def words(self) -> str:
        """What it said of the loss, without places and numbers that are others each time."""
        lines = self.said.splitlines()
        about = [one for one in lines if re.search(rf"{WORD}|written there again|^damaged|^(events|catalog)\t", one)]
        line = (about or ["nothing"])[0].partition(f"; {WORD}")[0].removeprefix("ct: ").partition(" UPDATE")[0]
        line = re.sub(r"\S*/(provenance\.jsonl|catalog\.db)", r"\1", re.sub(r"\t+", ": ", line))
        return re.sub(r"\d+ bytes|and has \d+|\([^)]*Z\)|size \d+ → \d+", "…", line).replace("|", "\\|")

    @property
    def back(self) -> str:
        if self.held:
            return f"all but {self.lost}" if self.lost else "all, as far as is known"
        return "all" if not self.problems else "all but results without files"


def went(at: Place, names: tuple[str, ...], first: tuple[str, ...], patch: pytest.MonkeyPatch) -> Course:
    """Break it, let a command meet it, do what that says, and look at what is true then."""
    every = at.told()
    assert len(every) > 15
    for name in names:
        CASES[name](at)
    if not at.is_sqlite:
        patch.setenv("CT_POSTGRES_URL", at.url)
    had = at.rows() | at.told()
    witness = (at.root / "store" / NAME).exists()
    met = ct("-C", at.root, *(str(at.root / one) if one.endswith(".csv") else one for one in first))
    said = met.err if first[0] != "verify" else met.out + met.err
    assert "Traceback" not in said
    if WORD not in said:
        assert met.code in (0, 3), met
    preview = ct("-C", at.root, "recover", "--dry-run")
    assert preview.code in (0, 3), preview
    done = ct("-C", at.root, "recover")
    assert done.code in (0, 3), done
    assert sorted(line for line in preview.err.splitlines() if line.startswith("found")) == sorted(
        line for line in done.err.splitlines() if line.startswith("found")
    )
    after = at.rows()
    assert had <= after, "an event that one of them had is gone"
    assert after == at.told(), "both have the same"
    lost = every - after
    is_blind = not witness and bool({*names} & UNREADABLE)
    is_held = "ct recover --accept-loss" in done.err
    assert is_held == (bool(lost) or is_blind), (lost, done)
    last = next(reversed(list(Journal(at.journal).read())))
    if "done: " in done.err:
        assert last["kind"] == "recover" and json.loads(last["body"])["found"], "the chain says it too"
    _true(at, lost, is_held, done.code, names)
    return Course(" ".join(first), met.code, said, len(lost), is_held, done.out)


def _true(at: Place, lost: set[str], is_held: bool, code: int, names: tuple[str, ...]) -> None:
    """Nobody without consent is there, and all agrees."""
    if is_held:
        assert code == 3
        for command in (("status",), ("path", f"counted/{REVOKED}"), ("export", at.root / "out.json"), ("run",)):
            refused = ct("-C", at.root, *command)
            assert refused.code == 1 and "ct recover --accept-loss --reason TEXT" in refused.err, refused
        verified = ct("-C", at.root, "verify", "--json")
        listed = [one["problem"] for one in json.loads(verified.out) if one["where"] == "events"]
        assert verified.code == 3 or not lost
        assert all(re.search("missing before|was changed", one) for one in listed), listed
        accepted = ct("-C", at.root, "recover", "--accept-loss", "--reason", "all forms were looked at")
        assert accepted.code in (0, 3) and "accepted" in accepted.err, accepted
    project = Project.find(at.root)
    assert disagreements(project) == []
    with project.catalog.read() as connection:
        rows = [dict(row) for row in connection.execute(event.select().order_by(event.c.seq)).mappings()]
    assert check_chain(iter(rows)) == [] and list(project.catalog.journal.read()) == rows
    if not lost:
        assert evaluate(project).of("counted", REVOKED).state == "excluded"
        shown = ct("-C", at.root, "path", f"counted/{REVOKED}")
        assert shown.code != 0 and "store" not in shown.out
    verified = ct("-C", at.root, "verify", "--json")
    left = {one["where"] for one in json.loads(verified.out)}
    assert left <= ({"merged/S1", "counted/A1"} if any(name in STORE for name in names) else set()), verified
    assert "nothing is lost" in ct("-C", at.root, "recover").err
    project.catalog.engine.dispose()


def cases(*tables: dict[str, Damage]) -> list[str]:
    return [name for some in tables for name in some]


def told(row: str) -> None:
    assert row in PAGE.read_text().splitlines(), row


def cells() -> dict[tuple[str, str], str]:
    """The table of two losses at once."""
    rows = [line.strip("| \n").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    head = next(number for number, row in enumerate(rows) if row[0] == "catalog, journal →")
    listed = rows[head + 1 : head + 1 + len(CATALOG)]
    return {(row[0], name): cell for row in listed for name, cell in zip(rows[head][1:], row[1:], strict=True)}


def _skip(place: Place, *names: str) -> None:
    if not place.is_sqlite and ONLY_SQLITE & {*names}:
        pytest.skip("of SQLite")


@pytest.mark.parametrize("name", cases(CATALOG, JOURNAL, STORE))
def test_each_loss_has_one_way_back(
    place: Place, name: str, monkeypatch: pytest.MonkeyPatch, lived: Place, tmp_path: Path
) -> None:
    _skip(place, name)
    if name == "write-ahead log lost":
        shutil.rmtree(place.root)
        place = copied(lived, tmp_path, "with log")
    first = ("verify",) if name in VERIFY else FIRST[list(CASES).index(name) % len(FIRST)]
    course = went(place, (name,), first, monkeypatch)
    if name in MADE_GOOD:
        assert course.code in (0, 3) and "written there again from the catalog" in course.said, course
    elif name == "lines of the journal removed":
        assert course.code in (0, 3) and course.said.count(WORD) == 1, course
    elif name not in STORE:
        assert course.code == (3 if name in VERIFY else 1) and course.said.count(WORD) == 1, course
    if place.is_sqlite:
        way = WORD if name not in {*MADE_GOOD, *STORE} else "`ct run`" if course.words.startswith("damaged") else ""
        told(f"| {name} | `ct {course.first.partition(' ')[0]}` | {course.words} | {way} | {course.back} |")


PAIRS = [
    (one, other)
    for some, others in ((CATALOG, JOURNAL), (CATALOG, STORE), (JOURNAL, STORE))
    for one in some
    for other in others
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_losses_at_once_have_one_way_back(
    place: Place, one: str, other: str, monkeypatch: pytest.MonkeyPatch, lived: Place, tmp_path: Path
) -> None:
    _skip(place, one, other)
    if one == "write-ahead log lost":
        shutil.rmtree(place.root)
        place = copied(lived, tmp_path, "with log")
    is_seen_late = {one, other} <= {*VERIFY, *MADE_GOOD, *STORE, "lines of the journal removed"}
    course = went(place, (one, other), ("verify",) if is_seen_late else ("status",), monkeypatch)
    if {one, other} - MADE_GOOD - set(STORE):
        assert course.code == (3 if is_seen_late else 1) and WORD in course.said, course
    if other in JOURNAL and place.is_sqlite:
        assert cells()[one, other] == course.back
