"""A raw file that is a folder, as pod5 or BCL: registered, read by steps, changed, lost, rotten, and given once."""

import hashlib
import os
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.tables import digest_memory, file
from ctcore.errors import SheetError, Usage
from ctcore.execution import sandbox
from ctcore.governance.consent import Statement, set_consent
from ctcore.intake.own_files import refuse_own_file
from ctcore.intake.raw_files import look
from ctcore.intake.register import register
from ctcore.project import Project
from ctcore.sheet.options import Options
from ctcore.store.folder_content import kept_listings, signature_at
from tests.helpers.kit import Inline, again, make, make_all, reasons
from tests.helpers.raw_folders import TOML, WRITES, make_project, registered, sheet
from tests.helpers.shell import ct


@pytest.fixture
def project(tmp_path: Path, catalog_url: str) -> Project:
    """Everything made."""
    found = make_project(tmp_path / "toy")
    registered(found)
    assert set(make_all(found, inline=False).values()) == {"made"}
    return found


def refusals(project: Project, **paths: str) -> list[str]:
    with pytest.raises(SheetError) as error:
        register(project, sheet(project.root, **paths))
    return list(error.value.problems)


def age(project: Project) -> None:
    """Old enough to be remembered."""
    for path in (project.root / "genome.txt", *(project.root / "raw").rglob("*")):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    time.sleep(0.03)


# Registered and read


def test_a_step_reads_the_folder_of_its_assay(project: Project) -> None:
    (made,) = (project.store.root / "called" / "A1").glob("*/n.txt")
    assert made.read_text() == "signal of A1\nmore of A1, skipped\n" and reasons(project) == {}
    assert "undeclared" not in ct("-C", project.root, "why", "called/A1").out


def test_what_is_given_counts_by_its_bytes(tmp_path: Path) -> None:
    project, read = make_project(tmp_path), list[int]()
    changes = register(project, sheet(tmp_path), on_bytes=read.append)
    assert changes.new["assay"] == ["A1", "A2", "A3"] and sum(read) == 3 * len("signal of A1\nmore of A1, skipped\n")
    with project.catalog.read() as connection:
        sizes = connection.execute(select(file.c.size)).scalars().all()
    assert sizes == [len("signal of A1\nmore of A1, skipped\n")] * 3 and len(kept_listings(project.store.root)) == 3


def test_the_same_again_is_not_read(tmp_path: Path) -> None:
    project, read = make_project(tmp_path), list[int]()
    age(project)
    registered(project)
    assert register(project, sheet(tmp_path), on_bytes=read.append).as_before is not None and read == []
    (project.root / "raw" / "A2" / "a.pod5").write_text("signal of A3\n")
    changes = register(project, sheet(tmp_path), on_bytes=read.append)
    assert changes.changed["assay"] == {"A2": ["pod5 other content (a.pod5)"]} and sum(read) == len(
        "signal of A3\nmore of A2, skipped\n"
    )
    assert look(project, read.append).changes == []


def test_a_changed_tree_makes_its_users_stale_by_name(project: Project) -> None:
    (project.root / "raw" / "A1" / "skip" / "b.pod5").write_text("other\n")
    (project.root / "raw" / "A1" / "new").mkdir()
    (change,) = look(project).changes
    assert change.startswith("assay/A1 pod5 ") and change.endswith(" (new, skip/b.pod5)")
    assert reasons(project) == {"called/A1": ["input"]}
    assert "(new, skip/b.pod5)" in ct("-C", project.root, "why", "called/A1").out
    make_all(project)
    assert reasons(project) == {}


def test_rotten_bytes_in_a_raw_folder_are_found(project: Project) -> None:
    look(project)
    (project.root / "raw" / "A1" / "a.pod5").write_text("signal of B1\n")
    seen = signature_at(project.root / "raw" / "A1")._asdict()
    with project.catalog.read() as connection:
        digest = connection.execute(select(file.c.digest).where(file.c.path == "raw/A1")).scalar_one()
    with project.catalog.write() as writer:
        writer.execute(digest_memory.delete().where(digest_memory.c.path == "raw/A1"))
        writer.insert(digest_memory, [{"path": "raw/A1", "digest": digest, **seen}])
        writer.execute(file.update().where(file.c.path == "raw/A1").values(**seen))
    assert look(project).changes == [], "no look can tell"
    said = ct("-C", project.root, "verify")
    assert said.code == 3 and "assay/A1 pod5" in said.out and "(a.pod5)" in said.out
    assert reasons(again(project)) == {"called/A1": ["input"]}


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("gone", "No such file or directory"),
        ("file", "not a folder, but a file"),
        ("out", "out is a link out of the folder; put its target into the folder"),
        ("circle", "skip/up leads back to a folder above it; take the link out"),
        ("none", "none is a link to nothing; put its target into the folder, or take it out"),
        ("pipe", "skip/pipe is neither a file nor a folder; take it out"),
    ],
)
def test_a_raw_folder_that_is_not_whole_is_named(tmp_path: Path, harm: str, said: str) -> None:
    project = make_project(tmp_path)
    registered(project)
    folder = tmp_path / "raw" / "A1"
    if harm in ("gone", "file"):
        folder.rename(tmp_path / "away")
    if harm == "file":
        folder.write_text("x")
    if harm == "out":
        (folder / "out").symlink_to(tmp_path / "genome.txt")
    if harm == "circle":
        (folder / "skip" / "up").symlink_to("..")
    if harm == "none":
        (folder / "none").symlink_to("nowhere")
    if harm == "pipe":
        os.mkfifo(folder / "skip" / "pipe")
    assert look(project).problems == [f"assay A1: pod5 raw/A1: {said}; put it back or correct the sheet"]
    (outcome,) = make(project, "called", "A1", runner=Inline(project))
    assert outcome.state == "failed"
    if harm != "gone":
        (problem,) = refusals(project)
        assert problem.startswith("row 2, column pod5: 'raw/A1' ")


# What is refused


def test_folders_that_cannot_be_are_told_with_their_cells(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    (tmp_path / "empty" / "sub").mkdir(parents=True)
    (tmp_path / "empty" / "sub" / "x").touch()
    (tmp_path / "link").symlink_to("raw/A1")
    assert refusals(project, A1="none", A2="genome.txt", A3="empty") == [
        "row 2, column pod5: 'none' is not there; correct the path (relative to the sheet) or put the folder there",
        "row 3, column pod5: 'genome.txt' is a file; name the folder itself, or list pod5 in files of [levels.assay]",
        "row 4, column pod5: 'empty' is empty (0 bytes); put the real files there",
    ]
    assert refusals(project, A2="link") == ["row 3, column pod5: 'link' is already pod5 of A1; each file is given once"]
    (tmp_path / "sheet.csv").write_text("patient_id,specimen_id,assay_id,reads\nP1,S1,A1,raw/A1\n")
    with pytest.raises(SheetError) as error:
        register(project, tmp_path / "sheet.csv")
    assert error.value.problems == (
        "row 2, column reads: 'raw/A1' is a folder; name the file itself, or list reads in folders of [levels.assay]",
    )


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("raw", "raw has files of pod5 of A1, raw/A1; each file is given once: correct the sheet"),
        ("raw/A1/skip", "raw/A1/skip has files of pod5 of A1, raw/A1; each file is given once: correct the sheet"),
        ("links/A1/skip", "links/A1/skip has files of pod5 of A1, raw/A1; each file is given once: correct the sheet"),
        ("links/A1", "links/A1 has files of pod5 of A1, raw/A1; each file is given once: correct the sheet"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_nobody_has_a_file_of_anothers_folder(tmp_path: Path, place: str, said: str, together: bool) -> None:
    project = make_project(tmp_path)
    (tmp_path / "links").symlink_to("raw")
    if together and place == "links/A1":
        assert refusals(project, A3=place) == [
            "row 4, column pod5: 'links/A1' is already pod5 of A1; each file is given once"
        ]
        return
    if not together:
        registered(project)
    problems = refusals(project, A3=place) if together else refused_alone(project, place)
    # Together, the first row of the two says it: A1 and A2 of a folder around them.
    assert said in problems[0] or (together and "raw/A1 has files of pod5 of A3" in problems[0])
    assert len(problems) == (2 if together and place == "raw" else 1)


def refused_alone(project: Project, place: str) -> list[str]:
    path = project.root / "more.csv"
    path.write_text(f"patient_id,specimen_id,assay_id,pod5\nP2,S2,A3,{place}\n")
    with pytest.raises(SheetError) as error:
        register(project, path)
    return list(error.value.problems)


@pytest.mark.parametrize("is_declared", [True, False])
def test_a_file_within_anothers_folder_is_refused(tmp_path: Path, is_declared: bool) -> None:
    project = make_project(tmp_path)
    registered(project)
    if not is_declared:
        (tmp_path / "ct.toml").write_text(TOML.replace('folders = ["pod5"]\n', "", 1))
        (tmp_path / "steps" / "toy.py").unlink()
        project = again(project)
    path = tmp_path / "more.csv"
    path.write_text("patient_id,specimen_id,assay_id,reads\nP2,S2,A3,raw/A1/skip/b.pod5\n")
    with pytest.raises(SheetError) as error:
        register(project, path)
    assert error.value.problems == (
        "row 2, column reads: raw/A1/skip/b.pod5 has files of pod5 of A1, raw/A1; each file is given once: correct "
        "the sheet",
    )


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("store/called", "lies in {root}/store, where only ct writes"),
        ("store", "contains {root}/store, where ct writes"),
        ("work", "contains {root}/work, where ct writes"),
        (".", "contains {root}, where ct writes"),
        ("..", "contains {root}, where ct writes"),
        ("refs", "contains the reference genome; name a folder of its own"),
        ("refs/star/sub", "lies in the reference star; name a place elsewhere"),
    ],
)
def test_no_raw_folder_holds_what_ct_writes(tmp_path: Path, place: str, said: str) -> None:
    root = tmp_path / "toy"
    more = '\n[references.star]\npath = "refs/star"\nversion = "1"\nfolder = true\n'
    project = make_project(root, TOML.replace("genome.txt", "refs/genome.txt") + more)
    (root / "refs" / "star" / "sub").mkdir(parents=True)
    (root / "refs" / "genome.txt").write_text("ACGT\n")
    (root / "refs" / "star" / "sub" / "SA").write_text("0")
    registered(project)
    make_all(project)
    problems = refused_alone(project, place)
    assert any(said.format(root=os.path.realpath(root)) in one for one in problems), problems


@pytest.mark.parametrize("place", ["raw/A1", "raw/A1/skip/b.pod5", "raw"])
def test_no_reference_lies_in_a_raw_folder(tmp_path: Path, place: str) -> None:
    project = make_project(tmp_path)
    registered(project)
    refused = ct("-C", tmp_path, "reference", "add", "mine", tmp_path / place, "--version", "1")
    assert refused.code and "raw file" in refused.err and "mine" not in (tmp_path / "ct.toml").read_text()
    folder = "true" if (tmp_path / place).is_dir() else "false"
    (tmp_path / "ct.toml").write_text(
        TOML + f'\n[references.mine]\npath = "{place}"\nversion = "1"\nfolder = {folder}\n'
    )
    assert any("raw file" in one for one in look(again(project)).problems)


def test_nothing_is_written_into_a_raw_folder(project: Project) -> None:
    with pytest.raises(Usage, match="is in a raw file that is a folder of this project"):
        refuse_own_file(project, project.root / "raw" / "A1" / "skip" / "table.tsv")


def test_a_folder_that_became_a_link_to_anothers_is_named(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    registered(project)
    (tmp_path / "raw" / "A3").rename(tmp_path / "away")
    (tmp_path / "raw" / "A3").symlink_to("A1")
    said = "has files that are in another raw file, too"
    assert look(project).problems == [f"assay A3: pod5 raw/A3: {said}; put it back or correct the sheet"]
    assert ct("-C", tmp_path, "verify").out.count(said) == 2, "whoever reads all takes it for neither's"
    (outcome,) = make(project, "called", "A3", runner=Inline(project))
    assert outcome.state == "failed"
    (tmp_path / "raw" / "A3").unlink()
    (tmp_path / "away").rename(tmp_path / "raw" / "A3")
    assert look(project).problems == [] and set(make_all(again(project)).values()) == {"made"}


def test_a_folder_that_got_anothers_files_is_not_read(tmp_path: Path) -> None:
    """Moved into it, with a link where they were: that one's own place has them as before."""
    project = make_project(tmp_path)
    registered(project)
    (tmp_path / "raw" / "A1").rename(tmp_path / "raw" / "A3" / "in")
    (tmp_path / "raw" / "A1").symlink_to("A3/in")
    lists = kept_listings(project.store.root)
    assert "a.pod5" not in ct("-C", tmp_path, "verify").out
    assert kept_listings(project.store.root) == lists


def test_an_emptied_folder_is_a_disk_that_is_away(project: Project) -> None:
    place = project.root / "raw" / "A1"
    place.rename(project.root / "away")
    place.mkdir()
    said = "assay A1: pod5 raw/A1: is empty (0 bytes); put it back or correct the sheet"
    assert look(project).problems == [said]
    assert "is empty (0 bytes)" in ct("-C", project.root, "verify").out
    place.rmdir()
    (project.root / "away").rename(place)
    assert look(project).problems == [] and reasons(again(project)) == {}


def test_names_inside_a_hidden_folder_are_not_told(project: Project) -> None:
    """By the list of before: they need not be in the sheet, nor on the disk."""
    set_consent(project, ["P1"], Statement("revoked", form="f"))
    (project.root / "raw/A1/a.pod5").rename(project.root / "raw/A1/b.pod5")
    changes = register(again(project), project.root / "sheet.csv", dry_run=True)
    assert changes.changed["assay"] == {"A1": ["pod5 other content"]}
    moved = ct("-C", project.root, "register", "assay", "A1", "--set", "pod5=raw/A1/skip", "--dry-run").out
    assert "raw/A1 →" not in moved and "a.pod5" not in moved


# Lists of checksums


def test_a_list_verifies_the_files_of_a_folder(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    listed = tmp_path / "raw" / "md5sum.txt"
    listed.write_text("8d777f385d3dfec8815d20f7496026dc  A1/a.pod5\n")
    with pytest.raises(SheetError) as error:
        register(project, sheet(tmp_path), options=Options(checksums=(listed,)))
    (problem,) = error.value.problems
    assert problem.startswith("row 2, column pod5: raw/A1/a.pod5 has the md5 ") and "md5sum.txt, line 1" in problem
    lines = [
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(tmp_path / 'raw')}"
        for path in sorted((tmp_path / "raw").rglob("*.pod5"))
    ]
    listed.write_text("\n".join(lines[:-1]) + "\n")
    changes = register(project, sheet(tmp_path), options=Options(checksums=(listed,)))
    assert changes.new["assay"] == ["A1", "A2", "A3"]
    assert f"{listed}: 5 files of the sheet as it says" in changes.notes
    assert "the sheet names 1 file that no checksum list does: raw/A3/skip/b.pod5" in changes.notes


def test_a_folder_itself_has_no_checksum(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    text = f"patient_id,specimen_id,assay_id,pod5,pod5_md5\nP1,S1,A1,raw/A1,{'0' * 32}\n"
    (tmp_path / "sheet.csv").write_text(text)
    with pytest.raises(SheetError) as error:
        register(project, tmp_path / "sheet.csv")
    assert "pod5_md5" in str(error.value)


# Calls


def test_a_raw_folder_that_changes_before_a_call_refuses_it(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    registered(project)
    (project.root / "raw" / "A1" / "skip" / "more").write_text("x")
    (outcome,) = make(project, "called", "A1", runner=Inline(project))
    assert outcome.state == "failed" and "A1 changed since it was last looked at" in outcome.why


def test_a_step_that_writes_into_a_raw_folder_is_told_so(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    registered(project)
    source = project.root / "steps" / "toy.py"
    source.write_text(source.read_text().replace("folder = call", WRITES))
    (outcome,) = make(again(project), "called", "A1", runner=Inline(project))
    assert outcome.state == "failed" and f"the step wrote into its input {tmp_path / 'raw' / 'A1'}" in outcome.why


def test_a_strict_sandbox_shows_a_raw_folder_read_only(tmp_path: Path) -> None:
    if why := sandbox.refusal():
        pytest.skip(why)
    project = make_project(tmp_path, TOML.replace("workers = 2", 'workers = 2\nsandbox = "strict"'))
    registered(project)
    assert set(make_all(project, inline=False).values()) == {"made"}
    source = project.root / "steps" / "toy.py"
    source.write_text(source.read_text().replace("folder = call", WRITES))
    (outcome,) = make(again(project), "called", "A1", runner=Inline(project))
    assert outcome.state == "failed" and "Read-only file system" in outcome.why


@pytest.mark.parametrize("other", ["raw/A2/a.pod5", "raw/A1.pod5"])
def test_a_read_beside_the_folder_is_undeclared(tmp_path: Path, other: str) -> None:
    project = make_project(tmp_path)
    (tmp_path / "raw" / "A1.pod5").write_text("x")
    registered(project)
    source = project.root / "steps" / "toy.py"
    source.write_text(
        source.read_text().replace("folder = call", f'open("{tmp_path / other}").read()\n    folder = call')
    )
    make(again(project), "called", "A1")
    assert other in ct("-C", project.root, "why", "called/A1").out


# Lineage


@pytest.mark.parametrize("what", ["raw/A1", "raw/A1/skip/b.pod5", "copy"])
def test_a_trace_of_what_is_in_a_folder_is_its_assays(project: Project, what: str) -> None:
    (project.root / "copy").write_bytes((project.root / "raw" / "A1" / "a.pod5").read_bytes())
    said = ct("-C", project.root, "trace", project.root / what)
    assert said.code == 0 and "A1" in said.out and "A3" not in said.out
    assert ct("-C", project.root, "consent", "set", "P1", "revoked", "--form", "x").code == 0
    said = ct("-C", project.root, "trace", project.root / what)
    assert said.code and "A1" not in said.out + said.err.replace(str(project.root / what), "")


def test_the_impact_of_a_file_inside_is_of_its_folder(project: Project) -> None:
    place = project.root / "raw" / "A1" / "skip" / "b.pod5"
    assert "assay\tcalled\t1\t33" in ct("-C", project.root, "impact", place).out
    place.write_text("other\n")
    look(project)
    assert "called" not in ct("-C", project.root, "impact", place).out, "nothing was made of it yet"


def test_recover_knows_the_folders_again(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    registered(project)
    make_all(project)
    for name in ("catalog.db", "catalog.db-wal", "catalog.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    assert ct("-C", tmp_path, "recover").code == 0
    look(again(project))
    assert reasons(again(project)) == {} and ct("-C", tmp_path, "verify").code == 0
