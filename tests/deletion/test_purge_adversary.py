"""Somebody puts back what a purge took out, in every generated way: each is found, with a way out that works."""

import bz2
import gzip
import io
import json
import lzma
import os
import re
import shutil
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import event as listening

from ctcore.deletion.copies import command
from ctcore.deletion.proof import check
from ctcore.deletion.purge import erase, remove
from ctcore.errors import CatalogError
from ctcore.governance.consent import set_consent
from ctcore.governance.qc import Choice, QcEntry, resolve
from ctcore.governance.qc import add as add_qc
from ctcore.inputs.current import forget
from ctcore.intake.register import register
from ctcore.intake.results import ResultEntry, analysis_of, record
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.integrity.catalog_check import disagreements
from ctcore.integrity.recover import recover
from ctcore.project import Project
from tests.deletion.test_purge import REVOKED, STEPS, built, cohort, holders, word
from tests.helpers.kit import TOML, again, make_all, make_project, write_sheet
from tests.helpers.shell import ct

ANALYSIS = '\n[analyses.pathology]\nlevel = "assay"\ncolumns.said = {}\n'
# With roles, a step that says QC, and one that fails with the person inside
FULL = (
    STEPS.replace('return {"heard": text}', 'return {"heard": text, "qc": "warn", "qc_reason": text.strip()}').replace(
        '@step(level="cohort", inputs={"some": "merged"}, outputs',
        '@step(level="cohort", inputs={"some": "merged"}, columns=["patient.sex"], role="specimen.site", outputs',
    )
    + """
@step(level="cohort", inputs={"all": "joined"}, outputs={"n": "n.txt"})
def fails(call: Call) -> None:
    raise ValueError("of S10: " + call.one("all")["words"].read_text())
"""
)


def full(root: Path) -> Project:
    """Something of P1 is in every table in which something of a person can be."""
    rows = [row | {"site": word(row["patient_id"]) + "site"} for row in cohort(root, [[1], [2]])]
    project = make_project(root, rows, steps=FULL, toml=TOML + ANALYSIS)
    make_all(project)
    register(
        project,
        write_sheet(root, [row | {"site": row["site"] + "2"} for row in rows]),
        AllowedChanges(update=frozenset({"specimen.site"})),
    )
    make_all(project)
    said = [
        ResultEntry(f"A{n}00", {"said": f"{word(f'P{n}')}s", "qc": "warn", "qc_reason": word(f"P{n}")}) for n in (0, 1)
    ]
    record(project, analysis_of(project, "pathology"), said)
    add_qc(project, [QcEntry("assay", "A101", "contamination", f"{word('P1')}foreign")])
    resolve(project, Choice(entity=("assay", "A101"), kind="contamination"), f"{word('P1')}clean")
    return project


@dataclass(frozen=True)
class Attack:
    """One way of putting something back; `place` has to be in what is said of it."""

    name: str
    do: Callable[[], object]
    place: str


def test_what_is_put_back_is_found_and_the_way_out_works(tmp_path: Path) -> None:
    project = full(tmp_path / "toy")
    root, before = project.root, tmp_path / "before"
    set_consent(project, ["P1"], REVOKED)
    project.catalog.engine.dispose()
    shutil.copytree(root, before)
    remove(project, "P1", "asked", "P1")
    assert check(project, 1).findings == () and holders(root, "P1") == []
    attacks = [*rows_put_back(root, before), *lines_put_back(root, before), *files_put_back(root, before, tmp_path)]
    assert len(attacks) > 150 and len({one.name for one in attacks}) == len(attacks)
    typed: set[str] = set()
    missed = [said for one in attacks for said in outcome(project, one, typed)]
    assert len(typed) > 1
    assert not missed, "\n".join(missed)
    assert disagreements(project) == [] and ct("-C", root, "verify").code == 0


def test_content_on_another_disk_behind_links_goes_too(tmp_path: Path) -> None:
    project, disk = full(tmp_path / "toy"), tmp_path / "disk"
    heard = project.root / "store" / "heard"
    for place in (heard / "A100", next((heard / "A101").iterdir()), *project.root.glob("store/joined/all/*/words.txt")):
        place.parent.chmod(0o755)
        moved = disk / place.relative_to(project.root)
        moved.parent.mkdir(parents=True)
        shutil.copytree(place, moved) if place.is_dir() else shutil.copy(place, moved)
        erase(place)
        place.symlink_to(moved)
    assert holders(disk, "P1")
    set_consent(project, ["P1"], REVOKED)
    remove(project, "P1", "asked", "P1")
    assert holders(disk, "P1") == [] == holders(project.root, "P1") and check(project, 1).findings == ()


def test_an_older_journal_brings_no_purged_person_back(tmp_path: Path) -> None:
    project = full(tmp_path / "toy")
    root, journal = project.root, project.root / "provenance.jsonl"
    set_consent(project, ["P1"], REVOKED)
    old = journal.read_text().splitlines(keepends=True)
    remove(project, "P1", "asked", "P1")
    journal.write_text("".join([*old, *journal.read_text().splitlines(keepends=True)[len(old) :]]))
    assert word("P1") in journal.read_text()
    project.catalog.engine.dispose()
    for path in root.glob("catalog.db*"):
        path.unlink()
    forget()
    said = ct("-C", root, "recover", "--dry-run")
    assert "as they were before a purge redacted them" in said.out + said.err and "edited" not in said.out + said.err
    assert recover(again(project)).left == ()
    remove(again(project), "P1", "asked again", "P1")
    assert holders(root, "P1") == [] and check(again(project), 1).findings == ()
    assert ct("-C", root, "verify").code == 0 and word("P0") in journal.read_text()


SAME = """
from ctcore.step import Call, step

@step(level="assay", files=["reads"], outputs={"n": "n.txt", "same": "same.txt"})
def heard(call: Call) -> None:
    print("everybody prints this, and it is long enough")
    call.out("n").write_text(call.file("reads").read_text() * 2)
    call.out("same").write_text("everybody has this\\n")
"""


def test_what_others_have_too_and_what_is_nobodys_is_no_finding(tmp_path: Path) -> None:
    root = tmp_path / "toy"
    rows = cohort(root, [[1], [2]])
    (root / "reads" / "A101.txt").write_bytes((root / "reads" / "A000.txt").read_bytes())
    project = make_project(root, rows, steps=SAME)
    make_all(project, inline=False)
    (root / "mine.txt").write_text("everybody has this\n")
    before = sorted(root.rglob("*/A000/**/*"))
    set_consent(project, ["P1"], REVOKED)
    remove(project, "P1", "asked", "P1")
    assert sorted(root.rglob("*/A000/**/*")) == before and any("logs" in path.parts for path in before)
    assert (root / "mine.txt").exists(), "others have the same bytes"
    (root / "copy.txt").write_bytes((root / "reads" / "A000.txt").read_bytes())
    (root / "notes.gz").write_bytes(gzip.compress(b"my notes, everybody has this\n"))
    (root / "empty.txt").touch()
    (root / "broken.gz").write_bytes(b"\x1f\x8bbroken")
    (root / "broken.zip").write_bytes(b"PK\x03\x04broken")
    (root / "deep.json").write_text("[" * 100_000)
    (root / "list.json").write_text('{"members": [1, {"a": 2}], "inputs": ["heard"], "node": 3}')
    (root / ".#lock").symlink_to("nobody@nowhere")
    os.mkfifo(root / "pipe")
    with closing(sqlite3.connect(root / "mine.db")) as connection:
        connection.execute("CREATE TABLE event (what TEXT)")
        connection.execute("CREATE TABLE entity (level TEXT, id TEXT, attributes TEXT)")
        connection.execute("CREATE TABLE event_logs (what TEXT)")
        connection.commit()
    shutil.copy(root / "provenance.jsonl", root / "provenance.jsonl.new")
    make_all(project, inline=False)
    assert check(project, 1).findings == ()
    (root / "provenance.jsonl.new").chmod(0)
    (root / "locked").mkdir(mode=0)
    unread = {where for where, said in check(project, 1).findings if "nothing is proved about it" in said}
    assert unread == (set() if os.getuid() == 0 else {"provenance.jsonl.new", "locked"})


def test_the_check_asks_the_catalog_no_more_of_a_larger_cohort(tmp_path: Path) -> None:
    def asked(name: str, shape: list[list[int]]) -> int:
        project = built(tmp_path / name, shape)
        set_consent(project, ["P1"], REVOKED)
        remove(project, "P1", "asked", "P1")
        count = [0]
        listening.listen(project.catalog.engine, "before_cursor_execute", lambda *_: count.__setitem__(0, count[0] + 1))
        assert check(project, 1).findings == ()
        return count[0]

    assert asked("small", [[1], [1]]) == asked("large", [[4, 4], [3, 3], [4]])


def outcome(project: Project, attack: Attack, typed: set[str]) -> Iterator[str]:
    """What is wrong with how it is found and removed. Each way out is typed once, and then called without the shell."""
    attack.do()
    forget()
    opened = again(project)
    try:
        found = check(opened, 1).findings
    except CatalogError as error:  # every command says so: the journal has another size than the store has seen
        if not (attack.place in str(error) and "`ct recover`" in str(error)):
            yield f"{attack.name}: {error}"
        recover(again(project))
        opened = again(project)
        found = (*check(opened, 1).findings, (attack.place, f"{command('P1')} once more"))
    if not found:
        yield f"{attack.name}: not found"
    elif not any(attack.place in where for where, _ in found):
        yield f"{attack.name}: {attack.place} is not named in {found}"
    if lacking := [one for one in found if "`ct purge P1" not in one[1] and "yours to remove" not in one[1]]:
        yield f"{attack.name}: no way out in {lacking}"
    ways = {way for _, said in found for way in re.findall("`ct (purge [^`]*)`", said)}
    for way in sorted(ways, key=len)[-1:]:  # the one with --raw does what the other one does
        if way in typed:
            remove(opened, "P1", "asked again", "P1", raw="--raw" in way)
            continue
        typed.add(way)
        did = ct("-C", opened.root, *way.replace("TEXT", "again").split())
        if did.code:
            yield f"{attack.name}: `ct {way}` says {did.err}"
    for where, said in found:
        if "yours to remove" in said:
            (opened.root / where).unlink()
    if left := check(again(project), 1).findings:
        yield f"{attack.name}: the way out leaves {left}"
    project.catalog.engine.dispose()


# Rows


def rows_put_back(root: Path, before: Path) -> Iterator[Attack]:
    """Each table and column in which the purge changed something, a row of each; and each table that lost rows."""
    skipped = {"setting", "purge", "tombstone", "digest_memory", "sqlite_sequence"}  # the last: digests and paths stay
    with closing(sqlite3.connect(before / "catalog.db")) as old, closing(sqlite3.connect(root / "catalog.db")) as new:
        tables = [row[0] for row in old.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in sorted(set(tables) - skipped):
            names = [row[1] for row in old.execute(f"PRAGMA table_info({table})")]
            keys = [row[1] for row in old.execute(f"PRAGMA table_info({table})") if row[5]]
            was, now = (rows_of(one, table, names, keys) for one in (old, new))
            for key in [key for key in was if key not in now][:2]:
                yield Attack(f"{table} {key}: the row", put(root, insert(table, names), tuple(was[key])), "")
            changed: dict[tuple[str, Any], int] = {}
            for key in was.keys() & now.keys():
                for name, old_value, new_value in zip(names, was[key], now[key], strict=True):
                    kind = was[key][names.index("kind")] if table == "event" else ""
                    changed[name, kind] = changed.get((name, kind), 0) + (old_value != new_value)
                    if old_value != new_value and changed[name, kind] <= 4:
                        where = " AND ".join(f'"{one}" = ?' for one in keys)
                        statement = f'UPDATE "{table}" SET "{name}" = ? WHERE {where}'
                        yield Attack(f"{table} {key}: {name}", put(root, statement, (old_value, *key)), "")


def rows_of(connection: sqlite3.Connection, table: str, names: list[str], keys: list[str]) -> dict[Any, Any]:
    at = [names.index(key) for key in keys]
    return {tuple(row[one] for one in at): row for row in connection.execute(f'SELECT * FROM "{table}"')}


def insert(table: str, names: list[str]) -> str:
    return f'INSERT INTO "{table}" VALUES ({", ".join("?" * len(names))})'


def put(root: Path, statement: str, values: tuple[Any, ...]) -> Callable[[], None]:
    def do() -> None:
        with closing(sqlite3.connect(root / "catalog.db")) as connection:
            connection.execute("PRAGMA ignore_check_constraints=ON")
            connection.execute(statement, values)
            connection.commit()

    return do


# Lines of the journal


def lines_put_back(root: Path, before: Path) -> Iterator[Attack]:
    name = "provenance.jsonl"
    old = (before / name).read_text().splitlines(keepends=True)
    now = (root / name).read_text().splitlines(keepends=True)
    changed = [at for at, line in enumerate(old) if line != now[at]]

    def writes(change: Callable[[list[str]], list[str]]) -> Callable[[], object]:
        def do() -> None:
            lines = (root / name).read_text().splitlines(keepends=True)
            (root / name).write_text("".join(change(lines)))

        return do

    for at in changed:
        line = f"{name}: line {at + 1}"
        yield Attack(line, writes(lambda now, at=at: [*now[:at], old[at], *now[at + 1 :]]), name)
        yield Attack(f"{line} twice", writes(lambda now, at=at: [*now[: at + 1], old[at], *now[at + 1 :]]), name)
    yield Attack(f"{name}: all of before", writes(lambda now: [*old, *now[len(old) :]]), name)


# Files


def files_put_back(root: Path, before: Path, tmp_path: Path) -> Iterator[Attack]:
    """One file of each kind, in each place, in each form; and whole backups."""
    gone = [path for path in before.rglob("*") if path.is_file() and not (root / path.relative_to(before)).exists()]
    mine = [path for path in gone if word("P1").encode() in path.read_bytes() or path.name == "ct.log.gz"]
    kinds = {
        "output": next(path for path in mine if path.name == "words.txt" and "heard" in path.parts),
        "output of all": next(path for path in mine if path.name == "words.txt" and "joined" in path.parts),
        "sidecar": next(path for path in mine if path.name == "ct.json" and "heard" in path.parts),
        "kept log": next(path for path in mine if path.name == "ct.log.gz" and "heard" in path.parts),
        "log": next(path for path in mine if "logs" in path.parts),
        "call": next(path for path in mine if "calls" in path.parts),
        "raw file": before / "reads" / "A100.txt",
    }
    for kind, path in kinds.items():
        yield from in_places(kind, path, root, before, tmp_path)
        if kind in ("output", "sidecar", "raw file"):
            yield from in_forms(kind, path, root)
    for folder in sorted({path.parent for path in mine if path.name == "ct.json"}):
        own = folder.relative_to(before)
        yield Attack(f"folder {own}", copied_tree(folder, root / own), f"{own.parts[1]}/{own.parts[2]}")
        yield Attack(f"folder {own} elsewhere", copied_tree(folder, root / "store" / "kept" / own.name), "kept")
    journal, catalog = before / "provenance.jsonl", before / "catalog.db"
    for name in ("provenance.jsonl.bak", "provenance.jsonl.1", "notes.txt", "store/heard/old"):
        yield Attack(f"journal as {name}", copied(journal.read_bytes(), root / name), name)
    some = next(line for line in journal.read_bytes().splitlines() if word("P1").encode() in line)
    yield Attack("a line of the journal in a text", copied(b"# see\n" + some, root / "line.txt"), "line.txt")
    for name in ("catalog.db.bak", "catalog.db-2026", "backup/catalog.db", "work/x", "catalog.old"):
        yield Attack(f"catalog as {name}", copied(catalog.read_bytes(), root / name), name)
    for name, pack in PACKED.items():
        yield Attack(f"catalog in {name}", copied(pack(catalog.read_bytes()), root / f"b.{name}"), f"b.{name}")
        yield Attack(f"journal in {name}", copied(pack(journal.read_bytes()), root / f"b.{name}"), f"b.{name}")
    log = b"\x37\x7f\x06\x82" + b"\0" * 28 + word("P1").encode()
    yield Attack("a log of SQLite", copied(log, root / "catalog.db.bak-wal"), "catalog.db.bak-wal")
    code = {"source": [["toy.py", "f", "if who == 'A100': pass"]], "declaration": {}}
    for name in ("store/.code/x.json", "old.json"):
        yield Attack(f"code as {name}", copied(json.dumps(code).encode(), root / name), name)


def in_places(kind: str, path: Path, root: Path, before: Path, tmp_path: Path) -> Iterator[Attack]:
    content = path.read_bytes()
    others = next((root / "store" / "heard" / "A000").iterdir()).relative_to(root)
    places = ["store/unknown/x", "store/x", f"{others}/x", f"{others}/a/b", "work/x", "work/logs/heard/A000/x.log"]
    places += ["store/.hidden/x", "exports/final.txt", "x", ".x/x", f"store/heard/A000/{'0' * 16}/words.txt"]
    places += [] if kind == "raw file" else [os.fspath(path.relative_to(before))]
    for place in places:
        named = "A100" if kind != "raw file" and place == os.fspath(path.relative_to(before)) else place
        yield Attack(f"{kind} at {place}", copied(content, root / place), "" if named != place else place)
    for place in ("store/elsewhere", "store/heard/Z", "linked"):
        yield Attack(
            f"{kind} behind the link {place}", linked(content, root / place, tmp_path / place.replace("/", "-")), place
        )
    yield Attack(f"{kind} is a link", link_to_file(content, root / "store" / "l", tmp_path / "disk2" / "f"), "store/l")
    circle = linked(content, root / "store" / "round", tmp_path / "disk3", circle=True)
    yield Attack(f"{kind} in a circle of links", circle, "store/round")


def in_forms(kind: str, path: Path, root: Path) -> Iterator[Attack]:
    for name, pack in PACKED.items():
        where = f"x.{name}" if kind == "output" else f"store/x.{name}"
        yield Attack(f"{kind} in {where}", copied(pack(path.read_bytes()), root / where), where)
    renamed = gzip.compress(path.read_bytes())
    yield Attack(f"{kind} packed under another name", copied(renamed, root / "work" / "picture.png"), "picture.png")


def tarred(content: bytes, mode: str) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode=mode) as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name, one in (("other", b"other"), ("a/b", content)):
            info = tarfile.TarInfo(name)
            info.size = len(one)
            archive.addfile(info, io.BytesIO(one))
    return whole.getvalue()


def zipped(content: bytes) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("other", b"other")
        archive.writestr("a/b", content)
    return whole.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zip": zipped,
    "tar": lambda content: tarred(content, "w"),
    "tar.gz": lambda content: tarred(content, "w:gz"),
    "zip.gz": lambda content: gzip.compress(zipped(content)),
}


def writable(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o755)


def copied(content: bytes, path: Path) -> Callable[[], None]:
    def do() -> None:
        writable(path)
        path.write_bytes(content)

    return do


def copied_tree(folder: Path, target: Path) -> Callable[[], None]:
    def do() -> None:
        writable(target)
        shutil.copytree(folder, target)

    return do


def linked(content: bytes, place: Path, disk: Path, circle: bool = False) -> Callable[[], None]:
    """A folder on another disk, which a link leads to."""

    def do() -> None:
        copied(content, disk / "deep" / "x")()
        writable(place)
        place.unlink(missing_ok=True)
        place.symlink_to(disk)
        (disk / "deep" / "up").unlink(missing_ok=True)
        if circle:
            (disk / "deep" / "up").symlink_to(place)

    return do


def link_to_file(content: bytes, place: Path, target: Path) -> Callable[[], None]:
    def do() -> None:
        copied(content, target)()
        place.unlink(missing_ok=True)
        place.symlink_to(target)

    return do
