"""Registering: all of a sheet or nothing, no contradiction without being asked by name, and nothing said twice."""

import hashlib
import json
import logging
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from click.testing import CliRunner
from sqlalchemy import select, text

from ctcore.catalog.event_log import check_chain
from ctcore.catalog.tables import event, metadata
from ctcore.cli import cli
from ctcore.errors import CatalogError, SheetError, Usage
from ctcore.intake.raw_files import Memory, look
from ctcore.intake.register import known_sheet, register
from ctcore.intake.sheet_diff import AllowedChanges, SheetChanges
from ctcore.project import Project
from tests.helpers.kit import ROWS, TOML, add, again, assay, count_entities, make_project, write_sheet
from tests.helpers.shell import ct

ENTITY_TABLES = [name for name in metadata.tables if name != "digest_memory"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two patients, three assays, registered."""
    made = make_project(tmp_path / "toy")
    settle(made)
    look(made)
    return made


def settle(project: Project) -> None:
    """Make the raw files old enough for their digests to be remembered."""
    before = time.time() - 60
    for path in (project.root / "reads").iterdir():
        os.utime(path, (before, before))
    time.sleep(0.03)  # the clock of the kernel has ticked since: their ctime says whether they are written again


def content(project: Project, *names: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table."""
    with project.catalog.read() as connection:
        return {
            name: sorted((tuple(row) for row in connection.execute(select(metadata.tables[name]))), key=repr)
            for name in (names or metadata.tables)
        }


def events(project: Project) -> list[dict[str, Any]]:
    with project.catalog.read() as connection:
        return [dict(row) for row in connection.execute(select(event).order_by(event.c.seq)).mappings()]


def attributes(project: Project, level: str, entity_id: str) -> dict[str, Any]:
    found = [row for row in content(project, "entity")["entity"] if row[1:3] == (level, entity_id)]
    return json.loads(found[0][4])


def parent(project: Project, level: str, entity_id: str) -> str:
    rows = content(project, "entity")["entity"]
    above = next(row[3] for row in rows if row[1:3] == (level, entity_id))
    return next(row[2] for row in rows if row[0] == above)


def problems(project: Project, *rows: dict[str, str], allowed: AllowedChanges | None = None) -> tuple[str, ...]:
    """What is wrong with a sheet of these rows; and that nothing of it was written."""
    path = write_sheet(project.root, rows)
    before = content(project)
    with pytest.raises(SheetError) as caught:
        register(project, path, allowed)
    assert content(project) == before
    return caught.value.problems


# What is written


def test_a_new_cohort_is_counted_by_level_and_written(project: Project) -> None:
    with project.catalog.read() as connection:
        assert count_entities(connection) == {"patient": 2, "specimen": 2, "assay": 3}
    assert (parent(project, "assay", "A2"), parent(project, "specimen", "S2")) == ("S1", "P2")
    assert attributes(project, "patient", "P1") == {"age": 40, "sex": "F"}
    files = content(project, "file")["file"]
    assert {(row[2], row[3]) for row in files} == {
        (f"reads/{a}.txt", blake3(f"reads of {a}\n".encode()).hexdigest()) for a in ("A1", "A2", "A3")
    }


def test_registering_again_changes_nothing_and_adds_no_event(project: Project) -> None:
    before = content(project)
    changes = register(project, project.root / "sheet.csv")
    assert not changes
    assert changes.unchanged == {"patient": 2, "specimen": 2, "assay": 3}
    assert content(project) == before


def test_touched_files_of_the_same_content_are_no_event(project: Project) -> None:
    before = events(project)
    os.utime(project.root / "reads/A1.txt")
    assert not register(project, project.root / "sheet.csv")
    assert events(project) == before
    signature = (project.root / "reads/A1.txt").stat().st_mtime_ns
    assert signature in [row[5] for row in content(project, "file")["file"]], "and are not read again next time"


def test_a_file_that_came_back_has_no_problem_any_more(project: Project) -> None:
    os.rename(project.root / "reads/A1.txt", project.root / "elsewhere")
    look(project)
    assert [row[7] for row in content(project, "file")["file"] if row[7]] == ["reads/A1.txt: No such file or directory"]
    os.rename(project.root / "elsewhere", project.root / "reads/A1.txt")
    register(project, project.root / "sheet.csv")
    assert [row[7] for row in content(project, "file")["file"] if row[7]] == []


def test_new_rows_blanks_and_files_are_counted_by_level(project: Project) -> None:
    (project.root / "reads/A1.txt").write_text("other reads\n")
    rows = [
        assay("P1", "S1", "A1", sex="F", age="40", site="lung", library="L1"),
        assay("P2", "S3", "A4"),
    ]
    changes = register(project, write_sheet(project.root, rows))
    assert changes.new == {"patient": [], "specimen": ["S3"], "assay": ["A4"]}
    assert changes.changed == {
        "patient": {},
        "specimen": {"S1": ["site = 'lung'"]},
        "assay": {"A1": ["library = 'L1'", "reads other content"]},
    }
    assert changes.unchanged == {"patient": 2, "specimen": 0, "assay": 0}
    assert attributes(project, "specimen", "S1") == {"site": "lung"}


def test_blank_cells_and_left_out_rows_take_nothing_away(project: Project) -> None:
    changes = register(project, write_sheet(project.root, [assay("P1", "S1", "A1")]))
    assert not changes
    assert attributes(project, "patient", "P1") == {"age": 40, "sex": "F"}
    with project.catalog.read() as connection:
        assert count_entities(connection)["assay"] == 3


def test_every_change_is_in_one_chain_and_the_journal(project: Project) -> None:
    add(project, [*ROWS, assay("P3", "S3", "A4")])
    rows = events(project)
    assert check_chain(iter(rows)) == []
    assert list(project.catalog.journal.read()) == rows
    new = [one["id"] for row in rows if row["kind"] == "register" for one in json.loads(row["body"]).get("new", [])]
    assert new == ["P1", "P2", "S1", "S2", "A1", "A2", "A3", "P3", "S3", "A4"]


def test_inner_paths_are_relative_also_through_a_link(project: Project) -> None:
    link = project.root.parent / "link"
    link.symlink_to(project.root)
    write_sheet(project.root, [assay("P3", "S3", "A4")])
    register(project, link / "sheet.csv")
    assert "reads/A4.txt" in [row[2] for row in content(project, "file")["file"]]


def test_the_last_sheet_is_known_and_the_projects_goes_first(project: Project) -> None:
    assert known_sheet(project) == project.root / "sheet.csv"
    (project.root / "ct.toml").write_text(TOML.replace('id = "toy"', 'id = "toy"\nsheet = "other.csv"'))
    assert known_sheet(again(project)) == project.root / "other.csv"


# --dry-run


def test_a_dry_run_says_what_would_be_and_writes_nothing(project: Project) -> None:
    rows = [assay("P1", "S1", "A1", sex="F", age="40", site="lung"), assay("P3", "S3", "A4", sex="M")]
    path = write_sheet(project.root, rows)
    settle(project)
    before = content(project)
    journal = project.catalog.journal.path.read_bytes()
    planned = register(project, path, dry_run=True)
    assert content(project) == before
    assert project.catalog.journal.path.read_bytes() == journal
    assert planned == SheetChanges(
        new={"patient": ["P3"], "specimen": ["S3"], "assay": ["A4"]},
        changed={"patient": {}, "specimen": {"S1": ["site = 'lung'"]}, "assay": {}},
        unchanged={"patient": 1, "specimen": 0, "assay": 1},
    )
    assert register(project, path) == planned


def test_register_counts_changes_and_shows_no_new_value(project: Project) -> None:
    path = write_sheet(project.root, [*ROWS, assay("P3", "S3", "A4", sex="M", age="97")])
    said = CliRunner().invoke(cli, ["-C", str(project.root), "register", "--dry-run", str(path)])
    assert said.exit_code == 0
    lines = said.stdout.splitlines()
    assert [line.split("\t") for line in lines] == [
        ["level", "new", "changed", "unchanged"],
        ["patient", "1", "0", "2"],
        ["specimen", "1", "0", "2"],
        ["assay", "1", "0", "3"],
    ]
    assert "nothing was written (--dry-run)" in said.stderr
    assert "97" not in said.output


# What is refused


def test_a_problem_in_one_row_keeps_all_rows_out(project: Project) -> None:
    found = problems(project, assay("P3", "S3", "A4"), assay("P 4", "S4", "A5"))
    assert [said.split(":")[0] for said in found] == ["row 3, column patient_id"]


def test_contradictions_with_the_catalog_come_at_once(project: Project) -> None:
    found = problems(
        project,
        assay("P1", "S1", "A1", sex="M", age="41"),
        assay("P1", "S2", "A2"),
        assay("p2", "S5", "A5"),
    )
    assert found == (
        "row 2, column sex: patient P1 has 'F' in the catalog and 'M' here; "
        "correct the sheet, or replace it with --update patient.sex",
        "row 2, column age: patient P1 has 40 in the catalog and 41 here; "
        "correct the sheet, or replace it with --update patient.age",
        "row 4: patient p2 differs from P2 of the catalog only in case; use P2",
        "row 3: specimen S2 belongs to P2 in the catalog and to P1 here; "
        "correct the sheet, or move it with --reparent S2",
        "row 3: assay A2 belongs to S1 in the catalog and to S2 here; correct the sheet, or move it with --reparent A2",
    )


def test_only_named_moves_and_replacements_are_made(project: Project) -> None:
    moved = assay("P1", "S2", "A3", sex="M", age="40")
    assert len(problems(project, moved, allowed=AllowedChanges(update=frozenset({"patient.sex"})))) == 1
    assert len(problems(project, moved, allowed=AllowedChanges(reparent=frozenset({"S2"})))) == 1
    both = AllowedChanges(reparent=frozenset({"S2"}), update=frozenset({"patient.sex"}))
    changes = register(project, write_sheet(project.root, [moved]), both)
    assert changes.changed == {
        "patient": {"P1": ["sex 'F' → 'M'"]},
        "specimen": {"S2": ["parent P2 → P1"]},
        "assay": {},
    }
    assert parent(project, "specimen", "S2") == "P1"
    assert attributes(project, "patient", "P1") == {"age": 40, "sex": "M"}


@pytest.mark.parametrize(
    ("allowed", "said"),
    [
        (
            AllowedChanges(update=frozenset({"patient.sexx"})),
            "--update patient.sexx: no such column .* mean patient.sex?",
        ),
        (AllowedChanges(update=frozenset({"sex"})), "--update sex: no such column of ct.toml"),
        (
            AllowedChanges(reparent=frozenset({"A33"})),
            "--reparent A33: no such specimen or assay of the sheet; .* mean A3?",
        ),
    ],
)
def test_an_allowance_that_names_nothing_is_a_wrong_call(project: Project, allowed: AllowedChanges, said: str) -> None:
    with pytest.raises(Usage, match=said):
        register(project, project.root / "sheet.csv", allowed)


def test_a_file_of_another_assay_is_refused(project: Project) -> None:
    assert problems(project, assay("P3", "S3", "A4", reads="reads/A1.txt")) == (
        "row 2, column reads: reads/A1.txt is already reads of A1 in the catalog; "
        "each file is given once: correct the sheet",
    )


def test_swapped_files_are_put_right_by_a_sheet_that_names_both(project: Project) -> None:
    rows = [assay("P1", "S1", "A1", reads="reads/A3.txt"), assay("P2", "S2", "A3", reads="reads/A1.txt")]
    changes = register(project, write_sheet(project.root, rows))
    assert changes.changed["assay"] == {
        "A1": ["reads reads/A1.txt → reads/A3.txt, other content"],
        "A3": ["reads reads/A3.txt → reads/A1.txt, other content"],
    }


def test_a_failed_write_leaves_nothing_and_shows_no_patient(project: Project) -> None:
    trigger = "CREATE TRIGGER no BEFORE INSERT ON file BEGIN SELECT RAISE(ABORT, 'disk on fire'); END"
    with project.catalog.engine.begin() as connection:
        connection.execute(text(trigger))
    path = write_sheet(project.root, [*ROWS, assay("P3", "S3", "A4", sex="M", age="97", site="secret-place")])
    before = content(project)
    with pytest.raises(CatalogError, match="disk on fire; nothing was written") as caught:
        register(project, path)
    assert content(project) == before
    whole = "".join(traceback.format_exception(caught.value))
    assert "IntegrityError" in whole
    assert "reads/A4" not in whole
    assert "secret-place" not in whole


# Files and checksums

HASHES = {
    "md5": lambda data: hashlib.md5(data).hexdigest(),
    "sha256": lambda data: hashlib.sha256(data).hexdigest(),
    "blake3": lambda data: blake3(data).hexdigest(),
}


def with_checksums(project: Project, stated: dict[str, str]) -> Path:
    """A sheet of one new assay with these checksums of its reads."""
    columns = ["sample", "reads", *(f"reads_{algorithm}" for algorithm in stated)]
    path = project.root / "checked.csv"
    path.write_text("\n".join([",".join(columns), ",".join(["N1", "reads/N1.txt", *stated.values()])]))
    return path


@pytest.mark.parametrize("algorithm", HASHES)
def test_a_right_checksum_passes_a_wrong_one_keeps_all_out(project: Project, algorithm: str) -> None:
    (project.root / "reads/N1.txt").write_bytes(b"new reads\n")
    settle(project)
    real, wrong = HASHES[algorithm](b"new reads\n"), HASHES[algorithm](b"new read\n")
    before = content(project, *ENTITY_TABLES)
    with pytest.raises(SheetError) as caught:
        register(project, with_checksums(project, {algorithm: wrong}))
    assert caught.value.problems == (
        f"row 2, column reads_{algorithm}: {wrong[:12]}… is not the checksum of reads/N1.txt ({real[:12]}…); "
        "fetch the file again, or correct the sheet",
    )
    assert content(project, *ENTITY_TABLES) == before
    assert register(project, with_checksums(project, {algorithm: real.upper()})).new["assay"] == ["N1"]


def test_verified_files_are_not_read_again(project: Project) -> None:
    (project.root / "reads/N1.txt").write_bytes(b"new reads\n")
    settle(project)
    path = with_checksums(project, {name: compute(b"new reads\n") for name, compute in HASHES.items()})
    register(project, path)
    done: list[int] = []
    before = (project.root / "reads/N1.txt").stat()
    assert not register(project, path, on_bytes=done.append)
    assert done == []
    (project.root / "reads/N1.txt").write_bytes(
        b"other data"
    )  # of the same size, and the same time once it is put back
    os.utime(project.root / "reads/N1.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(SheetError, match="3 problems"):
        register(project, path)


def test_a_contradiction_is_told_before_any_file_is_read(project: Project) -> None:
    path = write_sheet(project.root, [assay("P1", "S1", "A1", sex="M"), assay("P3", "S3", "A4")])
    done: list[int] = []
    with pytest.raises(SheetError, match="replace it with --update"):
        register(project, path, on_bytes=done.append)
    assert done == []


def test_checksums_of_one_file_are_remembered_apart(project: Project) -> None:
    path = project.root / "reads/A1.txt"
    for kind in ("", "md5:"):
        Memory(project, kind).remember({path: (_signature(path), f"digest of {kind}")})
    assert Memory(project).lookup({path: _signature(path)}) == {path: "digest of "}
    assert Memory(project, "md5:").lookup({path: _signature(path)}) == {path: "digest of md5:"}


def _signature(path: Path) -> Any:
    from ctcore.store.digest import Signature

    return Signature.of(path)


# Several at once

RACE = """
import sys, time
from pathlib import Path
from ctcore.project import Project
from ctcore.intake.register import register
root, sheet, number = sys.argv[1:]
project = Project.find(Path(root))
project.catalog
Path(root, f"ready{number}").touch()
deadline = time.monotonic() + 30
while not Path(root, "go").exists():
    assert time.monotonic() < deadline
    time.sleep(0.001)
changes = register(project, Path(sheet))
print(len(changes.new["patient"]), len(changes.new["assay"]), changes.unchanged["patient"])
"""


def test_two_sheets_at_one_moment_are_both_in_one_chain(project: Project) -> None:
    """Both name the new patient P9: one makes it, the other finds it."""
    sheets = []
    for number in range(2):
        rows = [assay("P9", f"S9{number}", f"N{number}-{n}", sex="F") for n in range(200)]
        sheets.append(write_sheet(project.root, rows).rename(project.root / f"race{number}.csv"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(project.root), str(sheet), str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number, sheet in enumerate(sheets)
    ]
    deadline = time.monotonic() + 60
    while not all((project.root / f"ready{number}").exists() for number in range(2)):
        assert time.monotonic() < deadline, [racer.poll() for racer in racers]
        time.sleep(0.005)
    (project.root / "go").touch()
    said = [racer.communicate(timeout=60) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], said
    assert sorted(out.strip() for out, _ in said) == ["0 200 1", "1 200 0"]
    with project.catalog.read() as connection:
        assert count_entities(connection) == {"patient": 3, "specimen": 4, "assay": 403}
    rows = events(project)
    assert check_chain(iter(rows)) == []
    assert list(project.catalog.journal.read()) == rows
    assert not register(project, sheets[0])


# What logs may say


def test_a_patients_attribute_is_in_no_log(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="sqlalchemy.engine")
    opened = again(project)
    path = write_sheet(project.root, [*ROWS, assay("P3", "S3", "A4", sex="M", age="97531")])
    register(opened, path)
    assert attributes(opened, "patient", "P3")["age"] == 97531
    assert "INSERT INTO entity" in caplog.text, "the log is as talkative as it can be made"
    assert "97531" not in caplog.text


def test_the_sheet_sensor_tells_places_and_no_values(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    import dagster as dg

    from resources import CtProject
    from sensors.sheet import sheet_sensor

    rows = [assay("P1", "S1", "A1", age="97531"), assay("P3", "S3", "A4", sex="secret-sex")]
    write_sheet(project.root, rows)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"ct": CtProject(root=str(project.root))})
        result = sheet_sensor(project)(context)
    assert isinstance(result, dg.SensorResult)
    assert result.skip_reason is not None
    said = result.skip_reason.skip_message or ""
    assert "row 3, column sex" in said
    assert "`ct register" in said
    assert "secret-sex" not in said + caplog.text
    assert "97531" not in said + caplog.text


def test_the_places_of_a_contradiction_show_no_values(project: Project) -> None:
    with pytest.raises(SheetError) as caught:
        register(project, write_sheet(project.root, [assay("P1", "S1", "A1", age="97531")]))
    assert "97531" in str(caught.value), "who types the command sees both values"
    assert "97531" not in caught.value.places
    assert "1 problem (row 2, column age)" in caught.value.places


def test_contradictions_are_said_beside_a_sheets_mistakes(project: Project) -> None:
    sheet = project.root / "more.csv"
    head = "patient_id,age,specimen_id,assay_id,reads,reads_blake3\n"
    rows = ["P1,41,S1,A1,,", "P2,50,S2,A4,reads/none.txt,", "P2,x,S2,A3,,", "P2,50,S1,A2,,"]
    sheet.write_text(head + "\n".join(rows))
    with pytest.raises(SheetError) as refused:
        register(project, sheet)
    wanted = (
        "row 2, column age: ",
        "row 3, column reads: 'reads/none.txt' is not there",
        "row 4, column age: ",
        "row 5: ",
    )
    assert all(said.startswith(so) for said, so in zip(refused.value.problems, wanted, strict=True)), refused.value
    sheet.write_text(f"{head}P1,41,S1,A1,,\nP2,50,S2,A3,reads/A3.txt,{'0' * 64}\n")
    with pytest.raises(SheetError) as refused:
        register(project, sheet)
    wanted = ("row 2, column age: ", "row 3, column reads_blake3: ")
    assert all(said.startswith(so) for said, so in zip(refused.value.problems, wanted, strict=True)), refused.value
    for words in (("P1", "--set", "age=x"), ("P1", "--set", "age=41")):
        assert ct("-C", project.root, "register", "patient", *words).err.count("1 problem;") == 1
