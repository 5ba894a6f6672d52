"""`ct export`: tables as files that other programs read back, with nobody in them who may not be there."""

import csv
import json
import math
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ctcore.query.workbook as workbook
from ctcore.project import Project
from ctcore.query.export import ExportRequest, _written, export
from ctcore.query.formats import CountedTable, escape_formula, write
from ctcore.query.readable import Gate
from ctcore.query.table import View
from ctcore.query.views import Views
from tests.cli.test_cli_run import until
from tests.helpers.kit import STEPS, assay, make_all, make_project
from tests.helpers.shell import command, ct, environment, shell

EVIL = '=cmd|"/c calc"!A1'
ROWS = (
    assay("P1", "S1", "A1", sex="F", age="40", site=EVIL, library="<script>alert(1)</script>"),
    assay("P1", "S1", "A2", sex="F", age="40", site=EVIL, library="-1+1"),
    assay("P2", "S2", "A3", sex="M", age="50", site="0012", library="@SUM(1)"),
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = make_project(tmp_path_factory.mktemp("export") / "toy", ROWS)
    make_all(made)
    return made


def exported(
    project: Project, place: Path, asked: ExportRequest, kind: str | None = None
) -> list[tuple[Path, str, int]]:
    with project.catalog.read() as connection:
        return export(Views(Gate.of(project, connection)), place, asked, kind)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("kind", ("csv", "tsv"))
def test_text_stays_text_and_runs_nowhere(project: Project, tmp_path: Path, kind: str) -> None:
    exported(project, tmp_path / f"s.{kind}", ExportRequest(["specimens"]))
    assert [row["site"] for row in read(tmp_path / f"s.{kind}")] == [f"'{EVIL}", "0012"]
    exported(project, tmp_path / f"a.{kind}", ExportRequest(["assays"]))
    assert [row["library"] for row in read(tmp_path / f"a.{kind}")] == [ROWS[0]["library"], "'-1+1", "'@SUM(1)"]
    exported(project, tmp_path / f"exact.{kind}", ExportRequest(["specimens"], exact=True))
    assert read(tmp_path / f"exact.{kind}")[0]["site"] == EVIL


@settings(max_examples=200, deadline=None)
@given(st.text() | st.text("=+-@1e. \t\n\0x"))
def test_no_text_begins_as_a_formula_and_none_is_lost(text: str) -> None:
    made = escape_formula(text)
    assert made in (text, f"'{text}")
    if made.lstrip()[:1] in ("=", "+", "-", "@"):
        float(made)  # a number, which runs nothing


def test_all_tables_are_a_workbook_without_formulas(project: Project, tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    done = exported(project, tmp_path / "all.xlsx", ExportRequest())
    book = openpyxl.load_workbook(tmp_path / "all.xlsx")
    assert [(name, book[name].max_row - 1) for name in book.sheetnames] == [(name, rows) for _, name, rows in done]
    site = book["specimens"]["D2"]
    assert (site.value, site.data_type) == (EVIL, "s")
    assert book["patients"]["D2"].value == 40 and book["specimens"]["D3"].value == "0012"


def test_a_table_longer_than_a_sheet_goes_on_on_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    monkeypatch.setattr(workbook, "SHEET_ROWS", 4)
    rows = [(at,) for at in range(7)]
    write("xlsx", tmp_path / "t.xlsx", [CountedTable(View("t", (("n", "integer"),), lambda: iter(rows)))], False)
    book = openpyxl.load_workbook(tmp_path / "t.xlsx")
    listed = [row[0].value for name in book.sheetnames for row in list(book[name].rows)[1:]]
    assert (book.sheetnames, listed) == (["t", "t 2", "t 3"], list(range(7)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()), min_size=1))
def test_what_is_written_into_a_workbook_is_read_from_it(tmp_path: Path, cells: list[object]) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    cells = ["a", *cells]  # a row without any value is none to who reads it
    view = View("t", tuple((f"c{at}", "any") for at in range(len(cells))), lambda: iter([tuple(cells)]))
    write("xlsx", tmp_path / "t.xlsx", [CountedTable(view)], False)
    read = list(openpyxl.load_workbook(tmp_path / "t.xlsx")["t"].rows)[1]
    for said, found in zip(cells, read, strict=True):
        if isinstance(said, str):
            wanted = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]", "\ufffd", said)
            wanted = wanted.replace("\r\n", "\n").replace("\r", "\n")
            assert (found.value or "") == wanted and found.data_type in ("s", "inlineStr")  # and no formula
        elif isinstance(said, int | float) and not abs(said) < (10**15 if isinstance(said, int) else workbook.LARGEST):
            assert found.value == str(said)
        elif isinstance(said, float):
            assert math.isclose(found.value, said, rel_tol=1e-15)  # of a number, a sheet has 15 digits
        else:
            assert found.value == said


def test_what_a_sheet_cannot_hold_is_said_or_kept_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    row = ("a\0b\x0b", "x" * 40_000, 2**60, math.inf, None, True)
    view = View("t", tuple((f"c{at}", "any") for at in range(6)), lambda: iter([row]))
    write("xlsx", tmp_path / "t.xlsx", [CountedTable(view)], False)
    cells = [cell.value for cell in list(openpyxl.load_workbook(tmp_path / "t.xlsx")["t"].rows)[1]]
    assert cells == ["a�b�", "x" * 32_767, str(2**60), "inf", None, True]
    assert "1 cells were cut" in capsys.readouterr().err


def test_parquet_has_the_declared_types(project: Project, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    exported(project, tmp_path / "all", ExportRequest(), "parquet")
    found = pq.read_table(tmp_path / "all/patients.parquet")
    assert {field.name: str(field.type) for field in found.schema} == {
        "patient_id": "string",
        "usable": "bool",
        "sex": "string",
        "age": "int64",
    }
    assert found.to_pylist()[0] == {"patient_id": "P1", "usable": True, "sex": "F", "age": 40}
    exported(project, tmp_path / "q.parquet", ExportRequest(sql="SELECT age, age / 2.0 h, sex, NULL n FROM patients"))
    assert pq.read_table(tmp_path / "q.parquet").to_pylist()[1] == {"age": 50, "h": 25.0, "sex": "M", "n": None}


def test_parquet_without_its_library_says_what_to_install(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    said = ct("-C", project.root, "export", tmp_path / "a.parquet", "--table", "assays")
    assert said.code == 2 and "ct-cohort[tables]" in said.err and list(tmp_path.iterdir()) == []


def test_json_is_one_object_of_all_tables(project: Project, tmp_path: Path) -> None:
    exported(project, tmp_path / "all.json", ExportRequest())
    found = json.loads((tmp_path / "all.json").read_text())
    assert found["specimens"][0] == {"specimen_id": "S1", "patient_id": "P1", "usable": True, "site": EVIL}
    assert {row["value"] for row in found["results"]} == {11}
    exported(project, tmp_path / "one.json", ExportRequest(["files"]))
    assert len(json.loads((tmp_path / "one.json").read_text())) == 3


def test_results_become_columns_on_demand_as_many_as_there_are(tmp_path: Path) -> None:
    steps = STEPS.replace('return {"letters": n}', 'return {f"m{at}": at + n for at in range(2500)}')
    project = make_project(tmp_path / "toy", ROWS, steps)
    make_all(project)
    exported(project, tmp_path / "wide.csv", ExportRequest(wide="assay"))
    found = read(tmp_path / "wide.csv")
    assert len(found[0]) == 5 + 2500 and found[2]["counted.m2499"] == str(2499 + 11)
    exported(project, tmp_path / "few.csv", ExportRequest(wide="assay", columns=["counted.m24?"]))
    assert len(read(tmp_path / "few.csv")[0]) == 5 + 10


def test_a_file_is_whole_or_as_it_was(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("before")

    def rows() -> Iterator[tuple[int]]:
        yield (1,)
        raise OSError("the disk is full")

    with pytest.raises(OSError):
        _written(path, "csv", [View("t", (("n", "integer"),), rows)], False)
    assert [one.name for one in tmp_path.iterdir()] == ["a.csv"] and path.read_text() == "before"


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_export_that_is_told_to_end_leaves_nothing_behind(
    project: Project, tmp_path: Path, sign: signal.Signals
) -> None:
    with _begun(project, tmp_path) as (process, part):
        process.send_signal(sign)
        assert process.wait(60) == 130
        assert not part.exists() and not [*tmp_path.iterdir()]


def test_the_next_export_removes_a_killed_ones_remains(project: Project, tmp_path: Path) -> None:
    with _begun(project, tmp_path) as (killed, left), _begun(project, tmp_path) as (_living, kept):
        killed.kill()
        killed.wait(60)
        (other := tmp_path / f".mine~1~x{left.name[left.name.rindex('~') :]}").touch()
        assert left.exists()
        shell("-C", project.root, "export", tmp_path / "all.csv", "--table", "assays")
        assert {*tmp_path.iterdir()} == {tmp_path / "all.csv", kept, other}


@contextmanager
def _begun(project: Project, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process that has begun to write a table, and its unfinished file. Its statement does not end by itself."""
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT 1 UNION ALL SELECT sum(x) FROM n"
    before = {*folder.iterdir()}
    arguments = ("-C", project.root, "export", folder / "all.csv", "--query", endless)
    with subprocess.Popen(command(*arguments), env=environment(), stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: {*folder.iterdir()} > before)
            yield process, ({*folder.iterdir()} - before).pop()
        finally:
            process.kill()


def test_what_was_left_out_is_said_beside_the_data(project: Project, tmp_path: Path) -> None:
    said = ct("-C", project.root, "export", "-", "--table", "patients")
    assert said.out.splitlines()[0] == "patient_id\tusable\tsex\tage" and len(said.out.splitlines()) == 3
    assert said.err.splitlines()[-1] == "left out: nothing; everybody may be used"


@pytest.mark.parametrize(
    "arguments",
    (
        ("a.csv",),
        ("a.pdf", "--table", "assays"),
        ("a.csv", "--table", "assay"),
        ("a.csv", "--table", "assays", "--query", "SELECT 1"),
        ("a.csv", "--query", "DROP TABLE assays"),
        ("-",),
        ("-", "--format", "xlsx", "--table", "assays"),
    ),
)
def test_what_cannot_be_is_said_and_writes_nothing(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ct("-C", project.root, "export", *arguments).code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_not_replaced_and_a_link_stays_one(project: Project, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe.csv")
    for typed in (("export", pipe, "--table", "assays"), ("dashboard", pipe), ("heatmap", pipe)):
        said = ct("-C", project.root, *typed)
        assert said.code == 2 and "is a device or a pipe" in said.err and pipe.is_fifo()
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    (tmp_path / "real.csv").write_text("")
    assert ct("-C", project.root, "export", tmp_path / "link.csv", "--table", "assays").code == 0
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "real.csv").read_text()
