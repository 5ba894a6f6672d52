"""Places that are full, gone, or no files: one line says which and what to do; after that the same command goes on."""

import os
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import openpyxl
import pytest

from ctcore.errors import SheetError, StoreError
from ctcore.files import look
from ctcore.project import Project
from ctcore.sheet.table import read_table
from ctcore.store import Store
from tests.kit import make_all, make_project
from tests.shell import Said, ct, shell


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = make_project(tmp_path / "toy")
    make_all(made)
    return made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 KiB; skips where this user may mount none."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", place], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("mounting a small disk needs its rights")
    yield place
    subprocess.run(["umount", "-l", place], capture_output=True, check=False)


def grown(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], capture_output=True, check=True)


EXPORTS = {
    "tables.xlsx": ("export",),
    "tables.json": ("export",),
    "one.csv": ("export", "--table", "verdicts"),
    "one.parquet": ("export", "--table", "verdicts"),
    "page.html": ("dashboard",),
    "picture.svg": ("heatmap",),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_what_a_full_disk_does_not_take_is_said_in_one_line_and_nothing_is_left(
    project: Project, disk: Path, name: str
) -> None:
    (disk / "filler").write_bytes(b"x" * 8192)
    command, *options = EXPORTS[name]
    arguments = ("-C", project.root, command, disk / name, *options)
    said = shell(*arguments)
    assert said.code == 1 and f"ct: {disk / name}: the disk is full" in said.err
    assert len(said.err.splitlines()) == 1 and os.listdir(disk) == ["filler"]
    grown(disk, "4m")
    assert shell(*arguments).code == 0 and (disk / name).stat().st_size > 0


def test_a_workbook_names_the_folder_of_temporary_files_where_that_is_full(project: Project, disk: Path) -> None:
    def export() -> Said:
        return shell("-C", project.root, "export", project.root / "t.xlsx", env={"TMPDIR": str(disk)})

    (disk / "some").write_bytes(b"x" * 4096)
    said = export()
    assert (said.code, said.err.startswith(f"ct: {disk}: the disk is full")) == (1, True), said.err
    assert len(said.err.splitlines()) == 1 and not (project.root / "t.xlsx").exists()
    grown(disk, "4m")
    assert export().code == 0


def test_a_project_on_a_full_disk_says_so_also_where_it_is_only_read(disk: Path) -> None:
    grown(disk, "4m")
    project = make_project(disk / "toy")
    project.catalog.engine.dispose()
    handle = os.open(disk / "filler", os.O_CREAT | os.O_WRONLY)
    with pytest.raises(OSError, match="No space"):
        while True:
            os.write(handle, b"x" * 4096)
    os.close(handle)
    for command in (("status",), ("consent", "set", "P1", "pending")):
        said = shell("-C", project.root, *command)
        assert said.code == 1 and "its disk is full (0 bytes are free): make room there" in said.err
        assert len(said.err.splitlines()) == 1
    (disk / "filler").unlink()
    assert shell("-C", project.root, "consent", "set", "P1", "pending").code == 0


def test_a_store_behind_a_link_to_a_disk_that_went_away_says_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "store").symlink_to(tmp_path / "disk" / "store")
    with pytest.raises(StoreError, match=r"leads to .*/disk/store, which is not there; mount its disk again"):
        Store(tmp_path / "store").ensure()
    (tmp_path / "disk" / "store").mkdir(parents=True)
    Store(tmp_path / "store").ensure()


# What is no regular file


@pytest.mark.parametrize("name", ["s.csv", "s.tsv", "s.xlsx", "s.ped", "s.json"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda place: os.symlink("/dev/zero", place)], ids=["pipe", "device"])
def test_a_sheet_that_is_a_pipe_or_a_device_is_refused_at_once(
    project: Project, name: str, make: Callable[[Path], None]
) -> None:
    make(project.root / name)
    said = ct("-C", project.root, "register", project.root / name)
    assert said.code == 1 and "it is no regular file, but a pipe or a device; save it as a file first" in said.err


def test_a_raw_file_that_became_a_pipe_a_device_or_a_folder_is_named_and_the_others_are_read(project: Project) -> None:
    reads = project.root / "reads"
    for name in ("A1.txt", "A2.txt", "A3.txt"):
        (reads / name).unlink()
    os.mkfifo(reads / "A1.txt")
    (reads / "A2.txt").mkdir()
    (reads / "A3.txt").write_text("others\n")
    said = ct("-C", project.root, "verify")
    assert said.code == 3 and said.out.count("not a regular file") == 2
    assert "A3" in said.out and "→" in said.out, "what can be read was read"
    (reads / "A3.txt").unlink()
    (reads / "A3.txt").symlink_to("/dev/zero")
    assert any("not a regular file" in one and "A3" in one for one in look(project).problems)


# Workbooks that are small and unpack to much


def workbook(path: Path, **parts: str) -> Path:
    """A workbook with one row, some of whose parts are replaced."""
    book = openpyxl.Workbook()
    assert book.active is not None
    book.active.append(["assay_id"])
    book.save(path.with_suffix(".whole"))
    with (
        zipfile.ZipFile(path.with_suffix(".whole")) as whole,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as changed,
    ):
        for one in whole.infolist():
            text = whole.read(one.filename).decode()
            changed.writestr(one.filename, parts.get(Path(one.filename).stem, text))
        changed.writestr("xl/media/image1.xml", parts.get("image1", ""))
    return path


def test_rows_that_begin_at_their_last_column_are_not_waited_for(tmp_path: Path) -> None:
    """300 kB, of which each row is 16,384 cells."""
    rows = "".join(f'<row r="{at}"><c r="XFD{at}"><v>1</v></c></row>' for at in range(1, 50_000))
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    path = workbook(tmp_path / "s.xlsx", sheet1=f'<worksheet xmlns="{main}"><sheetData>{rows}</sheetData></worksheet>')
    assert path.stat().st_size < 400_000
    with pytest.raises(SheetError, match="a tab has more than 10,000,000 cells; export the sheet as CSV UTF-8"):
        read_table(path)


def test_what_no_workbook_would_pack_to_so_little_is_not_unpacked(tmp_path: Path) -> None:
    path = workbook(tmp_path / "s.xlsx", image1="<t>a</t>" * 6_000_000)
    assert path.stat().st_size < 300_000
    with pytest.raises(SheetError, match=r"it would unpack to 48,.* bytes; export the sheet as CSV UTF-8"):
        read_table(path)
