"""Places that are full, gone, or no files: one line says which and what to do; after that the same command goes on."""

import errno
import os
import resource
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import openpyxl
import pytest

from ctcore.errors import SheetError, StoreError
from ctcore.execution.call import error_text
from ctcore.intake.raw_files import look
from ctcore.project import Project
from ctcore.sheet.rows import read_table
from ctcore.store.store import Store
from tests.helpers.kit import make_all, make_project
from tests.helpers.shell import Said, command, ct, environment, shell


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
def test_a_full_disk_is_one_line_and_leaves_nothing(project: Project, disk: Path, name: str) -> None:
    (disk / "filler").write_bytes(b"x" * 8192)
    command, *options = EXPORTS[name]
    arguments = ("-C", project.root, command, disk / name, *options)
    said = shell(*arguments)
    assert said.code == 1 and f"ct: {disk / name}: the disk is full" in said.err
    assert len(said.err.splitlines()) == 1 and os.listdir(disk) == ["filler"]
    grown(disk, "4m")
    assert shell(*arguments).code == 0 and (disk / name).stat().st_size > 0


def test_a_workbook_names_a_full_temporary_folder(project: Project, disk: Path) -> None:
    def export() -> Said:
        return shell("-C", project.root, "export", project.root / "t.xlsx", env={"TMPDIR": str(disk)})

    (disk / "some").write_bytes(b"x" * 4096)
    said = export()
    assert (said.code, said.err.startswith(f"ct: {disk}: the disk is full")) == (1, True), said.err
    assert len(said.err.splitlines()) == 1 and not (project.root / "t.xlsx").exists()
    grown(disk, "4m")
    assert export().code == 0


def test_a_project_on_a_full_disk_says_so_when_read(disk: Path) -> None:
    grown(disk, "4m")
    project = make_project(disk / "toy")
    project.catalog.engine.dispose()
    handle = os.open(disk / "filler", os.O_CREAT | os.O_WRONLY)
    with pytest.raises(OSError, match="No space"):
        while True:
            os.write(handle, b"x" * 4096)
    os.close(handle)
    for words in (("status",), ("consent", "set", "P1", "pending")):
        said = shell("-C", project.root, *words)
        assert said.code == 1 and "its disk is full (0 bytes are free): make room there" in said.err
        assert len(said.err.splitlines()) == 1
    (disk / "filler").unlink()
    assert shell("-C", project.root, "consent", "set", "P1", "pending").code == 0


def test_a_store_on_a_lost_disk_says_where_it_was(tmp_path: Path) -> None:
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


def test_a_raw_file_that_is_no_file_is_named_others_are_read(project: Project) -> None:
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


def test_rows_at_their_last_column_are_not_waited_for(tmp_path: Path) -> None:
    """300 kB, of which each row is 16,384 cells."""
    rows = "".join(f'<row r="{at}"><c r="XFD{at}"><v>1</v></c></row>' for at in range(1, 50_000))
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    path = workbook(tmp_path / "s.xlsx", sheet1=f'<worksheet xmlns="{main}"><sheetData>{rows}</sheetData></worksheet>')
    assert path.stat().st_size < 400_000
    with pytest.raises(SheetError, match="a tab has more than 10,000,000 cells; export the sheet as CSV UTF-8"):
        read_table(path)


def test_a_workbook_that_unpacks_too_far_is_not_unpacked(tmp_path: Path) -> None:
    path = workbook(tmp_path / "s.xlsx", image1="<t>a</t>" * 6_000_000)
    assert path.stat().st_size < 300_000
    with pytest.raises(SheetError, match=r"it would unpack to 48,.* bytes; export the sheet as CSV UTF-8"):
        read_table(path)


# A limit of open files is no disk


def under(limit: int, *arguments: str | Path) -> Said:
    """`ct` where a process may have so many files open (`ulimit -n`)."""
    limited = ["sh", "-c", f'ulimit -n {limit}; exec "$0" "$@"', *command(*arguments)]
    done = subprocess.run(limited, env=environment(), capture_output=True, text=True, check=False)
    return Said(done.returncode, done.stdout, done.stderr)


def test_a_run_with_too_few_open_files_is_refused_by_the_limit(project: Project) -> None:
    said = under(16, "-C", project.root, "run")
    assert (said.code, said.err) == (
        1,
        "ct: a run needs 64 open files, and 16 are allowed here; `ulimit -n 64`, then run it again\n",
    )


@pytest.mark.parametrize(("limit", "arguments"), [(5, ("status",)), (6, ("status",)), (6, ("verify",))])
def test_too_many_open_files_are_one_line_with_the_limit(
    project: Project, limit: int, arguments: tuple[str, ...]
) -> None:
    said = under(limit, "-C", project.root, *arguments)
    assert (
        said.code == 1
        and f"too many open files ({limit} are allowed here; raise the limit: `ulimit -n 1024`)" in said.err
    )
    assert said.err.startswith("ct: ") and said.err.count("\n") == 1 and "folder" not in said.err


def test_a_step_that_opens_too_many_files_is_told_the_limit(tmp_path: Path) -> None:
    error = error_text(OSError(errno.EMFILE, os.strerror(errno.EMFILE), "reads.txt"), tmp_path / "store")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert error == (
        "OSError: [Errno 24] Too many open files: 'reads.txt'; too many open files"
        f" ({limit} are allowed here; raise the limit: `ulimit -n {max(1024, 2 * limit)}`)"
    )


# The folder in which somebody works was deleted


def test_a_deleted_current_directory_is_said_with_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy, gone = make_project(tmp_path / "toy").root, tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("PWD", str(gone))
    for arguments in (
        ("status",),
        ("init", "x"),
        ("-C", "sub", "status"),
        ("-C", toy, "dashboard", "page.html"),
        ("-C", toy, "export", "one.xlsx"),
        ("-C", toy, "plan", "--save", "plan.json"),
        ("-C", toy, "register", "sheet.csv"),
    ):
        said = ct(*arguments)
        assert said.code != 0 and said.err.startswith("ct: ")
        assert said.err.endswith(
            f"the current directory, {gone}, was deleted: `cd` into one that is there, then run it again\n"
        )
        if "No such file" in said.err:
            assert str(arguments[-1]) in said.err, "a bare word of the system says nothing"
    assert ct("-C", toy, "status").code == 3, "nothing is needed of it"
