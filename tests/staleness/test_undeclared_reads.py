"""What a call read without declaring it: each kind comes with the line that declares it, and nobody hidden is named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctcore.governance.masking import UNMASKED, Mask
from ctcore.project import Project
from ctcore.staleness.undeclared_reads import masked_reads, parse_reads, sentences, way_of
from tests.helpers.kit import make_project

SHOWN = 10


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("reads") / "toy")


@pytest.mark.parametrize(
    ("kind", "what", "way"),
    [
        ("file", "steps/panel.tsv", 'Add code=("panel.tsv",)'),
        ("file", "steps/data/../panel.tsv", 'Add code=("panel.tsv",)'),
        ("file", "/d/hg38.fa.gz", 'Add references=("hg38",), and [references.hg38] path = "/d/hg38.fa.gz" in ct.toml'),
        ("file", "/d/a b-c.bed", 'Add references=("a_b_c",), and [references.a_b_c] path = "/d/a b-c.bed" in ct.toml'),
        ("file", "/d/-.bed", 'Add references=("KEY",), and [references.KEY] path = "/d/-.bed" in ct.toml'),
        ("file", "/opt/plot.R", 'Put it beside the step\'s file, and add code=("plot.R",)'),
        ("file", "/data/", "Give the step its files by name: as references, raw files, or outputs of another step"),
        ("program", "/usr/bin/bwa", 'Add tools={"bwa": "bwa --version"}'),
        ("environment", "THREADS", "Read it through a parameter: [params.counted] in ct.toml"),
    ],
)
def test_each_read_comes_with_the_line_that_declares_it(project: Project, kind: str, what: str, way: str) -> None:
    assert way_of(project, "counted", {"kind": kind, "what": what}) == way


def test_a_module_is_to_be_imported_as_a_sibling(project: Project) -> None:
    assert "import it as from .NAME" in way_of(project, "counted", {"kind": "module", "what": "helper"})


def test_an_absolute_path_beneath_the_steps_folder_is_its_code(project: Project) -> None:
    inside = {"kind": "file", "what": str(project.root / "steps/sub/panel.tsv")}
    assert way_of(project, "counted", inside) == 'Add code=("sub/panel.tsv",)'
    beside = {"kind": "file", "what": str(project.root / "steps2/panel.tsv")}
    assert way_of(project, "counted", beside).startswith("Add references=")


@given(st.integers(0, 2 * SHOWN), st.integers(0, 3))
def test_no_read_is_dropped_without_being_counted(listed: int, others: int) -> None:
    """`others`: reads that the watcher counted and did not list."""
    project = Project(Path("/nowhere"))
    found = [{"kind": "environment", "what": f"V{at}"} for at in range(listed)]
    found += [{"kind": "more", "what": str(others)}] if others else []
    lines = sentences(project, "counted", found)
    shown = [line for line in lines if not line.startswith("… and ")]
    more = sum(int(line.split()[2]) for line in lines if line.startswith("… and "))
    assert len(shown) == min(listed, SHOWN) and len(shown) + more == listed + others


def test_hidden_people_are_in_no_read() -> None:
    recorded = '[{"kind":"file","what":"reads/P1.txt"},{"kind":"file","what":"panel.tsv"}]'
    mask = Mask({"patient": {"P1"}, "specimen": {"S1"}}, {"merged": "specimen"})
    assert [one["what"] for one in masked_reads(("joined", "all"), recorded, mask) or ()] == ["panel.tsv"]
    assert masked_reads(("merged", "S1"), recorded, mask) is None
    assert len(masked_reads(("merged", "S1"), recorded, UNMASKED) or ()) == 2
    assert parse_reads(None) is None and parse_reads("[]") == [], "nobody watched is not that nothing was read"
