"""Which runs fed which specimens."""

import json
from pathlib import Path

import pytest

from ctcore.project import Project
from tests.helpers.kit import TOML, assay, fail, make_all, make_project
from tests.helpers.shell import ct

RUNS = TOML.replace("library = {}", 'library = {}\nrun = {}\nlane = "integer"')
PEOPLE = (
    assay("P1", "S1", "A1", library="R1"),
    assay("P1", "S1", "A2", library="R2"),
    assay("P1", "S1", "A3", library="R2"),
    assay("P2", "S2", "A4", library="R2"),
    assay("P3", "S3", "A5"),
)


@pytest.fixture
def project(tmp_path: Path, catalog_url: str) -> Project:
    return make_project(tmp_path, PEOPLE)


def rows(*arguments: str | Path) -> list[list[str]]:
    said = ct(*arguments)
    assert said.code == 0, said.err
    return [line.split("\t") for line in said.out.splitlines()]


def test_batches_have_assays_specimens_merges_and_artifacts(project: Project) -> None:
    asked = ("-C", project.root, "batches", "--by", "assay.library")
    assert rows(*asked) == [
        ["library", "assays", "specimens", "of them merged", "patients", "artifacts"],
        ["R1", "1", "1", "1", "1", "0"],
        ["R2", "3", "2", "1", "2", "0"],
        ["(blank)", "1", "1", "0", "1", "0"],
    ]
    make_all(project)
    assert [row[-1] for row in rows(*asked)[1:]] == ["1", "2", "1"], "merged/S1 and merged/S2"
    assert rows(*asked, "--merges")[1:] == [["S1", "3", "2", "R1 × 1, R2 × 2"]]
    assert rows(*asked, "R2")[1:] == [["S1", "3", "2", "R1 × 1, R2 × 2"], ["S2", "1", "1", "R2 × 1"]]
    found = json.loads(ct(*asked, "--json").out)
    assert found["specimens"] == {"S1": {"R1": 1, "R2": 2}, "S2": {"R2": 1}, "S3": {"(blank)": 1}}
    assert found["merges"] == ["S1"] and found["batches"][1]["assays"] == ["A2", "A3", "A4"]


def test_who_may_not_be_used_is_in_no_batch(project: Project) -> None:
    fail(project, "A3", "P2")
    said = ct("-C", project.root, "batches", "--by", "library")
    assert [line.split("\t")[:3] for line in said.out.splitlines()[1:]] == [
        ["R1", "1", "1"],
        ["R2", "1", "1"],
        ["(blank)", "1", "1"],
    ]
    assert "left out: 1 patient (1 qc_fail), 1 specimen (1 qc_fail), 2 assays (2 qc_fail)" in said.err
    more = ct("-C", project.root, "batches", "--by", "library", "--excluded", "--reason", "counting for the lab")
    assert more.out.splitlines()[2].startswith("R2\t3\t2")


def test_a_flowchart_that_is_valid_whatever_batches_are_called(tmp_path: Path) -> None:
    make_project(tmp_path, [assay("P1", "S1", "A1", library='R"1"]'), assay("P1", "S1", "A2", library="R2")])
    assert ct("-C", tmp_path, "batches", "--by", "library", "--mermaid").out.splitlines() == [
        "flowchart LR",
        '  b0(["R#34;1#34;#93;"])',
        '  b1(["R2"])',
        '  s0["S1"]',
        '  b0 -->|"1"| s0',
        '  b1 -->|"1"| s0',
    ]


def test_usual_columns_are_found_and_specimens_show_batches(tmp_path: Path) -> None:
    project = make_project(tmp_path, [assay("P1", "S1", "A1")], toml=RUNS)
    said = ct("-C", project.root, "register", "assay", "A1", "--set", "run=7")
    assert said.code == 0, said.err
    assert rows("-C", tmp_path, "batches")[1:] == [["7", "1", "1", "0", "1", "0"]]
    assert json.loads(ct("-C", tmp_path, "show", "specimen/S1", "--json").out)["fed_by"] == [
        {"assay": "A1", "batch": "7"}
    ]
    assert "A1\t7" in ct("-C", tmp_path, "show", "specimen/S1").out


def test_what_is_no_batch_is_said(project: Project) -> None:
    asked = ("-C", project.root, "batches")
    assert "which column tells batches apart? --by assay.COLUMN; declared: assay.library" in ct(*asked).err
    assert "no such column of assays; declared: library" in ct(*asked, "--by", "assay.lib").err
    assert "no batch 'R9' by assay.library; there is: (blank), R1, R2" in ct(*asked, "R9", "--by", "library").err
