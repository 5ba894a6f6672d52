"""Contracts: what is right passes, and each kind of wrong is named with its place."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctcore.contract import SHOWN, Json, NotEmpty, Table
from ctcore.errors import StepError

GENES = Table(
    columns={"gene": "text", "reads": "integer", "share": "real", "note": "text"},
    ranges={"reads": (0, 100), "share": (0, 1)},
    unique=("gene",),
    blank=("note",),
)
HEAD = "gene\treads\tshare\tnote\n"

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> Path:
        path = tmp_path / "table.tsv"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def test_a_table_that_keeps_its_contract_has_no_problems(write: Write) -> None:
    assert GENES.problems(write(HEAD + "A\t0\t0\t\nB\t100\t1e0\tfine\n")) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the table has no header line"),
        (HEAD, "0 rows; at least 1 expected"),
        ("gene\treads\tshare\nA\t1\t0\n", "column 'note' is missing; the table has: gene, reads, share"),
        (HEAD.replace("\n", "\tgene\n"), "column 'gene' is there 2 times"),
        (HEAD.replace("\n", "\tmore\n"), "column 'more' is not declared"),
        (HEAD + "A\t1\t0\n", "row 1: 3 values for 4 columns"),
        (HEAD + "A\t1\t0\t\nB\tmany\t0\t\n", "row 2, column 'reads': 'many' is not a whole number"),
        (HEAD + "A\t1.0\t0\t\n", "row 1, column 'reads': '1.0' is not a whole number"),
        (HEAD + "A\t1_0\t0\t\n", "row 1, column 'reads': '1_0' is not a whole number"),
        (HEAD + "A\t1\tnan\t\n", "row 1, column 'share': 'nan' is not a finite number"),
        (HEAD + "A\t101\t0\t\n", "row 1, column 'reads': 101 is not within 0 to 100"),
        (
            HEAD + "A\t" + "9" * 400 + "\t0\t\n",
            "row 1, column 'reads': " + "9" * 400 + " is not within 0 to 100",
        ),
        (HEAD + "\t1\t0\t\n", "row 1, column 'gene': blank"),
        (HEAD + "A\t1\t0\t\nB\t1\t0\t\nA\t2\t0\t\n", "row 3: gene 'A' is there already, in row 1"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(write: Write, text: str, said: str) -> None:
    assert GENES.problems(write(text)) == [said]


def test_every_problem_is_told_at_once(write: Write) -> None:
    assert len(GENES.problems(write(HEAD + "A\tx\t7\t\nA\t1\t0\t\n"))) == 3


def test_a_wrong_column_does_not_flood_the_log(write: Write) -> None:
    found = GENES.problems(write(HEAD + "".join(f"{row}\tx\t0\t\n" for row in range(1000))))
    assert len(found) == SHOWN + 1
    assert found[-1] == "… and more"


def test_allowed_further_columns_are_checked_by_type(write: Write) -> None:
    matrix = Table(columns={"bin": "text"}, others="real")
    assert matrix.problems(write("bin\tA\tB\n1\t0.5\t2\n")) == []
    assert matrix.problems(write("bin\tA\tB\n1\t0.5\tx\n")) == ["row 1, column 'B': 'x' is not a finite number"]


def test_a_file_that_is_not_text_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_bytes(b"gene\treads\n\xff\xfe\t1\n")
    assert GENES.problems(path) == ["not UTF-8 text (byte 11)"]


@given(st.binary(max_size=400))
def test_no_bytes_whatever_make_a_contract_crash(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(HEAD.encode() + raw)
    for contract in (GENES, NotEmpty(), Json({"a": "integer"})):
        assert all(isinstance(problem, str) for problem in contract.problems(path))


@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_as_python_writes_them_are_numbers(
    tmp_path_factory: pytest.TempPathFactory, whole: int, real: float
) -> None:
    path = tmp_path_factory.mktemp("numbers") / "table.tsv"
    path.write_text(f"whole\treal\n{whole}\t{real!r}\n")
    assert Table(columns={"whole": "integer", "real": "real"}).problems(path) == []


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: Table(columns={"a": "number"}), "type 'number' is not one of"),  # type: ignore[dict-item]
        (lambda: Table(columns={"a": "text"}, unique=("b",)), "'b' is not among its columns: a"),
        (lambda: Table(columns={"a": "text"}, ranges={"a": (0, 1)}), "column 'a' is text"),
        (lambda: Json({"a": "number"}), "type 'number' is not one of"),  # type: ignore[dict-item]
    ],
)
def test_a_contract_that_cannot_be_is_refused_when_declared(declare: Callable[[], object], said: str) -> None:
    with pytest.raises(StepError, match=said):
        declare()


def test_an_empty_file_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    assert NotEmpty().problems(path) == ["the file is empty"]
    path.write_bytes(b"\0")
    assert NotEmpty().problems(path) == []


def test_json_must_be_an_object_with_its_keys(write: Write) -> None:
    contract = Json({"n": "integer", "name": "text"})
    assert contract.problems(write('{"n": 1, "name": "a", "more": null}')) == []
    assert contract.problems(write('{"n": true}')) == [
        "key 'n': True is not of type integer",
        "key 'name' is missing",
    ]
    assert contract.problems(write("[1]")) == ["a JSON object is expected, not list"]
    assert contract.problems(write("{"))[0].startswith("not JSON: ")
