"""Checksum lists of a delivery, in every form, matched with the files of a sheet."""

import hashlib
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import func, select

from ctcore.catalog.tables import event
from ctcore.errors import SheetError
from ctcore.intake.register import register
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.schema import Levels, LevelSchema
from ctcore.project import Project
from ctcore.sheet.checksum_lists import LENGTHS
from ctcore.sheet.options import Options
from ctcore.sheet.parse import Sheet, read_sheet
from tests.helpers.kit import again, make_project
from tests.helpers.shell import ct

LEVELS: Levels = {level: LevelSchema(level, files=("reads",) if level == "assay" else ()) for level in ENTITY_LEVELS}


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def delivery(folder: Path, *names: str) -> Path:
    """A sheet of files, each with its own name as content."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "s.csv").write_text("sample,reads\n" + "".join(f"S{n},{name}\n" for n, name in enumerate(names)))
    return folder / "s.csv"


def read(sheet: Path, *lists: str) -> Sheet:
    paths = []
    for number, text in enumerate(lists):
        paths.append(sheet.parent / f"list{number}.txt")
        paths[-1].write_bytes(text.encode())
    return read_sheet(sheet, LEVELS, Options(checksums=tuple(paths)))


def stated(sheet: Sheet) -> dict[str, dict[str, str]]:
    return {one.id: claim.checksums for one in sheet.entities["assay"].values() for claim in one.files.values()}


def problems(sheet: Path, *lists: str) -> list[str]:
    with pytest.raises(SheetError) as refused:
        read(sheet, *lists)
    return [one.replace(f"{sheet.parent}/", "") for one in refused.value.problems]


ONE, TWO = md5("a/1.fq"), sha256("a/1.fq")


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        (f"{ONE}  a/1.fq\n", "md5"),
        (f"{ONE} *./a/1.fq\r\n", "md5"),
        (f"# made by hand\n\n{ONE.upper()}\t1.fq", "md5"),
        (f"\ufeff{ONE}  ./Project x/1.fq\n", "md5"),
        (f"MD5 (/mnt/a/1.fq) = {ONE}\n", "md5"),
        (f"MD5(1.fq)= {ONE}\n", "md5"),
        (f"1.fq\t{ONE}\n", "md5"),
        (f"{TWO}  1.fq\n", "sha256"),
        (f"SHA256 (1.fq) = {TWO}\n", "sha256"),
        (f"SHA2-256(1.fq)= {TWO}\n", "sha256"),
        (f"BLAKE3 (1.fq) = {TWO}\n", "blake3"),
        (f"{ONE}  ..\\Project\\1.fq\n", "md5"),
    ],
)
def test_every_form_of_a_list_is_read(tmp_path: Path, text: str, algorithm: str) -> None:
    sheet = read(delivery(tmp_path, "a/1.fq"), text)
    assert stated(sheet) == {"S0": {algorithm: ONE if algorithm == "md5" else TWO}}
    assert sheet.notes == (f"{tmp_path}/list0.txt: 1 file of the sheet as it says",)


@pytest.mark.parametrize("name", ["1.fq.md5", "1.fq.sha256", "b3sums.txt"])
def test_the_name_of_a_list_says_what_its_lines_do_not(tmp_path: Path, name: str) -> None:
    sheet, algorithm = delivery(tmp_path, "1.fq"), {"1.fq.md5": "md5", "1.fq.sha256": "sha256"}.get(name, "blake3")
    digest = "a" * LENGTHS[algorithm]
    (tmp_path / name).write_text(digest if name.startswith("1") else f"{digest}  1.fq")
    assert stated(read_sheet(sheet, LEVELS, Options(checksums=(tmp_path / name,)))) == {"S0": {algorithm: digest}}


@pytest.mark.skipif(shutil.which("md5sum") is None, reason="needs GNU coreutils")
def test_what_md5sum_writes_is_read_back(tmp_path: Path) -> None:
    names = ["a b.fq", "(c) = d.fq", "back\\slash.fq", "x.fq"]
    sheet = delivery(tmp_path, *names)
    for flags in ([], ["--tag"], ["--binary"]):
        said = subprocess.run(["md5sum", *flags, *names], cwd=tmp_path, capture_output=True, check=True)
        found = stated(read(sheet, said.stdout.decode()))
        assert found == {f"S{n}": {"md5": md5(name)} for n, name in enumerate(names)}


def test_paths_go_before_names_and_more_folders_before_fewer(tmp_path: Path) -> None:
    sheet = delivery(tmp_path, "run1/x.fq", "run2/x.fq", "run3/x.fq")
    one, two = md5("run1/x.fq"), md5("run2/x.fq")
    found = read(sheet, f"{one}  run1/x.fq\n")
    assert stated(found) == {"S0": {"md5": one}, "S1": {}, "S2": {}}, "a path is no name for the others"
    assert found.notes[-1].startswith("the sheet names 2 files that no checksum list does: ")
    found = read(sheet, f"{one}  elsewhere/run1/x.fq\n{two}  elsewhere/run2/x.fq\n")
    assert stated(found)["S0"] == {"md5": one} and stated(found)["S1"] == {"md5": two}
    assert (
        read(sheet, f"{one}  run1/x.fq\n{one}  y.fq\n")
        .notes[1]
        .endswith("list0.txt names 1 file that the sheet does not: y.fq")
    )


def test_a_name_that_may_be_several_files_is_refused(tmp_path: Path) -> None:
    sheet = delivery(tmp_path, "run1/x.fq", "run2/x.fq")
    (said,) = problems(sheet, f"{ONE}  x.fq\n")
    assert said.startswith("row 2, column reads: list0.txt, line 1 (x.fq) may be any of ")
    one = delivery(tmp_path / "b", "x.fq")
    (said,) = problems(one, f"{ONE}  A/x.fq\n{md5('x')}  B/x.fq\n")
    assert "x.fq may be any of list0.txt, line 1 (A/x.fq), list0.txt, line 2 (B/x.fq); write paths" in said
    assert stated(read(one, f"{ONE}  A/x.fq\n{ONE}  B/x.fq\n")) == {"S0": {"md5": ONE}}, "both say the same"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "list0.txt: it has no checksum; lines such as"),
        ("a,b\n", "list0.txt, line 1: 'a,b' is no checksum with a file; lines such as"),
        (f"{'a' * 40}  x.fq\n", f"list0.txt, line 1: '{'a' * 40}' is no checksum of a known kind (40 digits); md5"),
        (f"SHA1 (x.fq) = {'a' * 40}", f"list0.txt, line 1: '{'a' * 40}' is no SHA1 (40 digits); md5, sha256"),
        (f"MD5 (x.fq) = {'a' * 64}", f"list0.txt, line 1: '{'a' * 64}' is no MD5 (64 digits); md5"),
        (f"{'a' * 32}  x.fq\n{'b' * 32}  ./x.fq", "list0.txt, line 2: './x.fq' has another md5 in list0.txt, line 1"),
        (f"{'a' * 32}  y.fq\n", "list0.txt: it names no file of the sheet; give the list of these files"),
    ],
)  # fmt: skip
def test_a_list_that_cannot_be_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (problem,) = problems(delivery(tmp_path, "x.fq"), text)
    assert problem.replace(f"{tmp_path}/", "").startswith(said)


def test_a_list_that_is_none_is_refused(tmp_path: Path) -> None:
    sheet = delivery(tmp_path, "x.fq")
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("none.txt", "there is no such file"), ("pipe", "a pipe or a device"), (".", "it is a folder")):
        with pytest.raises(SheetError, match=said):
            read_sheet(sheet, LEVELS, Options(checksums=(tmp_path / name,)))


def test_a_list_and_a_column_must_agree(tmp_path: Path) -> None:
    delivery(tmp_path, "x.fq")
    (tmp_path / "s.csv").write_text(f"sample,reads,reads_md5\nS0,x.fq,{ONE}\n")
    (said,) = problems(tmp_path / "s.csv", f"{md5('x.fq')}  x.fq\n")
    assert said == (
        f"row 2, column reads: {ONE} by column reads_md5, and {md5('x.fq')} by list0.txt, line 1; correct one of them"
    )
    assert stated(read(tmp_path / "s.csv", f"{ONE}  x.fq", f"{TWO}  x.fq")) == {"S0": {"md5": ONE, "sha256": TWO}}


# What registering makes of them


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "toy")


def listed(project: Project, change: str = "") -> Path:
    """A list of all raw files; of one of them with other content."""
    path = project.root / "md5sum.txt"
    files = sorted((project.root / "reads").iterdir())
    path.write_text(
        "".join(f"{md5(one.read_text() + change * (one == files[0]))}  reads/{one.name}\n" for one in files)
    )
    return path


def told(project: Project) -> int:
    with project.catalog.read() as connection:
        return connection.execute(select(func.count()).select_from(event)).scalar_one()


def test_a_mismatch_names_file_expected_and_found(project: Project) -> None:
    first, before = min((project.root / "reads").iterdir()), told(project)
    said = ct("-C", project.root, "register", project.root / "sheet.csv", "--checksums", listed(project, "x"))
    assert said.code == 1
    assert f"reads/{first.name} has the md5 {md5(first.read_text())}, and " in said.err
    assert f"md5sum.txt, line 1 expects {md5(first.read_text() + 'x')}; fetch the file again" in said.err
    assert told(project) == before, "nothing was written"


def test_a_changed_list_is_read_though_the_sheet_is_not(project: Project) -> None:
    options = Options(checksums=(listed(project),))
    register(project, project.root / "sheet.csv", options=options)
    listed(project, "x")
    with pytest.raises(SheetError, match="fetch the file again"):
        register(again(project), project.root / "sheet.csv", options=options)


def test_lists_are_for_sheets(project: Project) -> None:
    said = ct("-C", project.root, "register", "patient", "P9", "--checksums", "md5sum.txt")
    assert said.code == 2 and "--checksums, --split and --tab are for sheets" in said.err


def test_any_list_lands_whole_or_is_refused(tmp_path: Path) -> None:
    """A damaged list never gives a file a checksum that stands in no line with its name."""
    sheet, landed = delivery(tmp_path, "run1/x.fq", "run2/x.fq", "y.fq"), 0
    good = "".join(f"{md5(name)}  {name}\n" for name in ("run1/x.fq", "run2/x.fq", "y.fq"))
    for seed in range(300):
        random_, text = random.Random(seed), good
        for _ in range(random_.randint(1, 3)):
            at = random_.randrange(len(text))
            text = (
                text[:at]
                + random_.choice(["", "\n", "  ", "x", "/", "a", "(", "\0", "run1/"])
                + text[at + random_.randint(0, 2) :]
            )
        try:
            found = stated(read(sheet, text))
        except SheetError as error:
            assert all(one and "\n" not in one for one in error.problems), f"seed {seed}"
            continue
        landed += 1
        lines = [line.lower() for line in text.splitlines()]
        for name, checksums in zip(("x.fq", "x.fq", "y.fq"), found.values(), strict=True):
            for digest in checksums.values():
                assert any(digest in line and line.rstrip().endswith(name) for line in lines), f"seed {seed}: {text!r}"
    assert 0 < landed < 300
