"""A reference that is a folder, as an aligner's index: declared, read by steps, changed, lost and rotten."""

import os
import time
import tomllib
from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.tables import digest_memory, reference
from ctcore.errors import Usage
from ctcore.execution import sandbox
from ctcore.intake.own_files import refuse_own_file
from ctcore.intake.raw_files import look
from ctcore.intake.reference_places import misplaced
from ctcore.project import Project
from ctcore.store.folder_content import signature_at
from tests.helpers.kit import ROWS, TOML, Inline, again, make, make_all, make_project, reasons
from tests.helpers.shell import ct

STEPS = """
from ctcore.step import Call, step

@step(level="assay", files=["reads"], references=["star"], outputs={"n": "n.txt"})
def aligned(call: Call) -> None:
    folder = call.reference("star")
    call.out("n").write_text((folder / "Genome").read_text() + (folder / "sub" / "chr.txt").read_text())

@step(level="assay", files=["reads"], outputs={"n": "n.txt"})
def plain(call: Call) -> None:
    call.out("n").write_text(call.file("reads").read_text())
"""
STAR = '\n[references.star]\npath = "star"\nversion = "2.7"\nfolder = true\n'


def index(root: Path) -> Path:
    folder = root / "star"
    (folder / "sub").mkdir(parents=True)
    (folder / "Genome").write_text("ACGT")
    (folder / "sub" / "chr.txt").write_text("chr1\n")
    return folder


def project_of(root: Path, toml: str = TOML) -> Project:
    index(root)
    return make_project(root, ROWS, STEPS, toml + STAR)


@pytest.fixture
def project(tmp_path: Path, catalog_url: str) -> Project:
    """Everything made."""
    found = project_of(tmp_path / "toy")
    assert set(make_all(found, inline=False).values()) == {"made"}
    return found


def test_a_step_reads_the_folder_by_its_path(project: Project) -> None:
    (made,) = (project.store.root / "aligned" / "A1").glob("*/n.txt")
    assert made.read_text() == "ACGTchr1\n" and reasons(project) == {}
    assert "undeclared" not in ct("-C", project.root, "why", "aligned/A1").out


def test_a_changed_file_makes_its_users_stale_and_is_named(project: Project) -> None:
    (project.root / "star" / "Genome").write_text("ACGA")
    (project.root / "star" / "new").mkdir()
    (change,) = look(project).changes
    assert change.startswith("reference/star content ") and change.endswith(" (Genome, new)")
    assert reasons(project) == {f"aligned/{name}": ["reference"] for name in ("A1", "A2", "A3")}
    assert "(Genome, new)" in ct("-C", project.root, "why", "aligned/A1").out
    make_all(project)
    assert reasons(project) == {}


def test_an_unchanged_folder_is_remembered(project: Project) -> None:
    read: list[int] = []
    for path in (project.root / "genome.txt", *(project.root / "star").rglob("*")):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    time.sleep(0.03)  # old enough to be remembered
    look(project, read.append)
    assert sum(read) == 9 + len("ACGT\n"), "of all references, which are young"
    del read[:]
    assert look(project, read.append).changes == [] and read == [] and reasons(project) == {}


def test_rotten_bytes_in_a_folder_are_found_by_reading(project: Project) -> None:
    look(project)
    (project.root / "star" / "sub" / "chr.txt").write_text("chrX\n")
    seen = signature_at(project.root / "star")._asdict()
    with project.catalog.read() as connection:
        digest = connection.execute(select(reference.c.digest).where(reference.c.key == "star")).scalar_one()
    with project.catalog.write() as writer:
        writer.execute(digest_memory.delete().where(digest_memory.c.path == "star"))
        writer.insert(digest_memory, [{"path": "star", "digest": digest, **seen}])
    assert look(project).changes == [], "no look can tell"
    said = ct("-C", project.root, "verify")
    assert said.code == 3 and "reference/star" in said.out and "(sub/chr.txt)" in said.out
    assert reasons(again(project))["aligned/A1"] == ["reference"]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("gone", "reference star: star is not there; correct [references.star] path in ct.toml"),
        ("empty", "reference star: star is an empty folder; put the real files there"),
        (
            "file",
            "reference star: star is a file; take out folder = true, or name the folder in [references.star] "
            "of ct.toml",
        ),
        ("link", "reference star: star: out is a link out of the folder; put its target into the folder"),
    ],
)
def test_a_folder_that_is_not_whole_is_named(tmp_path: Path, harm: str, said: str) -> None:
    project = project_of(tmp_path / "toy")
    folder = project.root / "star"
    if harm == "link":
        (folder / "out").symlink_to(project.root / "genome.txt")
    else:
        folder.rename(project.root / "away")
    if harm == "empty":
        folder.mkdir()
    if harm == "file":
        folder.write_text("x")
    assert look(project).problems == [said]
    (outcome,) = make(project, "aligned", "A1", runner=Inline(project))
    assert outcome.state == "failed" and str(folder) in outcome.why


def test_a_folder_that_is_not_declared_as_one_is_refused(tmp_path: Path) -> None:
    index(tmp_path)
    project = make_project(tmp_path, ROWS, STEPS, TOML + STAR.replace("folder = true\n", ""))
    assert look(project).problems == [
        "reference star: star is a folder; say folder = true in [references.star] of ct.toml"
    ]


def test_a_folder_that_changes_before_a_call_refuses_it(tmp_path: Path) -> None:
    project = project_of(tmp_path / "toy")
    (project.root / "star" / "sub" / "more").write_text("x")
    (outcome,) = make(project, "aligned", "A1", runner=Inline(project))
    assert outcome.state == "failed" and "star changed since it was last looked at" in outcome.why


def test_add_and_bump_take_folders(tmp_path: Path) -> None:
    index(tmp_path)
    project = make_project(tmp_path, ROWS)
    assert ct("-C", tmp_path, "reference", "add", "star", tmp_path / "star", "--version", "2.7").code == 0
    declared = tomllib.loads((tmp_path / "ct.toml").read_text())["references"]["star"]
    assert declared == {"path": "star", "version": "2.7", "folder": True}
    (tmp_path / "star").rename(tmp_path / "star2")
    bump = ("-C", tmp_path, "reference", "bump", "star", tmp_path / "star2", "--version", "2.8", "--reason", "new")
    assert "version 2.7 → 2.8" in ct(*bump).out
    wrong = ct("-C", tmp_path, "reference", "bump", "star", tmp_path / "genome.txt", "--version", "3", "--reason", "x")
    assert wrong.code == 2 and "is no folder, as star is" in wrong.err
    assert "only a genome" in ct("-C", tmp_path, "reference", "index", "star").err
    listed = ct("-C", tmp_path, "reference", "list", "star", "--history").out
    assert "gone" in listed and "there" in listed
    genome = ct("-C", tmp_path, "reference", "add", "g", tmp_path / "star2", "--version", "1", "--kind", "genome")
    assert genome.code == 2 and "a genome is a file" in genome.err
    with pytest.raises(Usage, match="is in the reference star of this project"):
        refuse_own_file(again(project), tmp_path / "star2" / "table.tsv")


def test_a_trace_of_a_folder_goes_past_references_that_are_gone(project: Project) -> None:
    project.root.joinpath("genome.txt").unlink()
    said = ct("-C", project.root, "trace", project.root / "reads")
    assert said.code == 2 and "Traceback" not in said.err and "reads" in said.err


def test_a_trace_of_the_folder_is_that_of_the_reference(project: Project) -> None:
    said = ct("-C", project.root, "trace", project.root / "star")
    assert said.code == 0 and "star" in said.out


def test_a_step_that_writes_into_the_folder_is_told_so(tmp_path: Path) -> None:
    project = project_of(tmp_path / "toy")
    source = project.root / "steps" / "toy.py"
    writes = '(call.reference("star") / "w").write_text("x")\n    folder = call'
    source.write_text(source.read_text().replace("folder = call", writes))
    (outcome,) = make(again(project), "aligned", "A1", runner=Inline(project))
    assert outcome.state == "failed" and f"the step wrote into its input {project.root / 'star'}" in outcome.why


def test_a_strict_sandbox_shows_the_folder_read_only(tmp_path: Path) -> None:
    if why := sandbox.refusal():
        pytest.skip(why)
    project = project_of(tmp_path / "toy", TOML.replace("workers = 2", 'workers = 2\nsandbox = "strict"'))
    assert set(make_all(project, inline=False).values()) == {"made"}
    source = project.root / "steps" / "toy.py"
    writes = '(call.reference("star") / "w").write_text("x")\n    folder = call'
    source.write_text(source.read_text().replace("folder = call", writes))
    (outcome,) = make(again(project), "aligned", "A1", runner=Inline(project))
    assert outcome.state == "failed" and "Read-only file system" in outcome.why


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("store/counted", "lies in"),
        ("store", "lies in"),
        (".", "contains"),
        ("reads", "contains raw files of the cohort"),
        ("links/reads", "contains raw files of the cohort"),
    ],
)
def test_results_and_raw_files_are_in_no_reference(tmp_path: Path, place: str, said: str) -> None:
    """They would go past consent and purge."""
    project = make_project(tmp_path / "toy")
    make_all(project)
    (project.root / "links").mkdir()
    (project.root / "links" / "reads").symlink_to(project.root / "reads")
    refused = ct("-C", project.root, "reference", "add", "mine", project.root / place, "--version", "1")
    assert refused.code and said in refused.err and "mine" not in (project.root / "ct.toml").read_text()
    toml = f'\n[references.mine]\npath = "{place}"\nversion = "1"\nfolder = true\n'
    (project.root / "ct.toml").write_text(TOML + toml)
    assert misplaced(again(project), again(project).settings.references["mine"], project.root / place) is not None
    assert any(said in one for one in look(again(project)).problems)
