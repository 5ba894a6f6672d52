"""What people have ct write takes the place of nothing that the project needs: `ctcore.intake.own_files`."""

import os
from pathlib import Path

import pytest

from tests.helpers.kit import make_project
from tests.helpers.shell import ct


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("sheet.csv", "the sheet of this project"),
        ("reads/A1.txt", "a raw file of this project"),
        ("genome.txt", "the reference genome of this project"),
        ("store/x.csv", "where only ct writes"),
        ("work/x.csv", "where only ct writes"),
        ("link.csv", "the sheet of this project"),
        ("ct.toml", "ct.toml of this project"),
        ("provenance.jsonl", "provenance.jsonl of this project"),
        ("catalog.db", "catalog.db of this project"),
        ("steps/toy.py", "a step file of this project"),
        ("pipe.csv", "a device or a pipe"),
    ],
)
def test_nothing_that_the_project_needs_is_replaced(tmp_path: Path, place: str, what: str) -> None:
    """By what people have ct write: tables, pages, plans."""
    project = make_project(tmp_path / "own")
    project.catalog.engine.dispose()  # its log of writes goes into the file now, and not at some later moment
    own = project.root
    (own / "link.csv").symlink_to("sheet.csv")
    os.mkfifo(own / "pipe.csv")
    before = (own / place).read_bytes() if (own / place).is_file() else None
    table = ("export", own / place, "--table", "verdicts", "--format", "csv")
    for words in (table, ("dashboard", own / place), ("plan", "--save", own / place)):
        said = ct("-C", own, *words)
        assert said.code == 2 and what in said.err, said
    assert ((own / place).read_bytes() if (own / place).is_file() else None) == before
