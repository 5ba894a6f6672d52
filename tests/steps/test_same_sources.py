"""A project that is opened anew keeps the steps that it has read, as long as reading them would give the same."""

import os
import time
from pathlib import Path

import pytest

from ctcore.code.loader import load_file, parse_ahead
from ctcore.code.module import module_of
from ctcore.code.sources import SeenFiles
from ctcore.project import Project
from ctcore.store.digest import Signature
from resources import CtProject
from tests.helpers.kit import make_project

OPENED = """
from ctcore.step import step

@step(level="assay", outputs={"n": "n.txt"}%s)
def one(call):
    call.out("n").write_text("one")
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = make_project(tmp_path / "toy")
    _age(made.root / "steps")
    opened = Project(made.root)
    _ = opened.recipes
    return opened


def _age(folder: Path) -> None:
    """Wait until a file that is written now would have another signature: the clock of files ticks slowly."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    while not all(Signature.of(path).settled(time.time_ns()) for path in paths):
        time.sleep(0.02)


def test_unchanged_steps_are_not_read_again(project: Project) -> None:
    again = project.reopened()
    assert again is not project and again.steps is project.steps and again.recipes is project.recipes
    assert again.catalog is not project.catalog


@pytest.mark.parametrize("change", ["edit", "same size", "new file", "gone", "settings"])
def test_a_change_of_any_file_is_read(project: Project, change: str) -> None:
    path, settings = project.root / "steps" / "toy.py", project.root / "ct.toml"
    text = path.read_text()
    if change == "edit":
        path.write_text(text + "\nMORE = 1\n")
    elif change == "same size":
        seen = path.stat()
        path.write_text(text.replace("Toy steps", "Joy steps"))
        os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    elif change == "new file":
        (path.parent / "other.py").write_text(OPENED % "")
    elif change == "gone":
        path.unlink()
    else:
        settings.write_text(settings.read_text().replace("workers = 2", "workers = 3"))
    assert project.reopened().steps is not project.steps


@pytest.mark.parametrize("declared", [', code=["*.tsv"]', ""])
def test_steps_that_read_files_beside_them_are_read_again(project: Project, declared: str) -> None:
    place = project.root / "steps" / "beside.py"
    place.with_name("table.tsv").write_text("a\n")
    place.write_text(OPENED % declared + ("" if declared else "HERE = __file__\n\ndef other():\n    return HERE\n"))
    if not declared:
        place.write_text(place.read_text().replace('write_text("one")', "write_text(__file__)"))
    _age(place.parent)
    opened = Project(project.root)
    _ = opened.recipes
    assert opened.reopened().steps is not opened.steps


def test_a_file_that_was_written_a_moment_ago_is_read_again(tmp_path: Path) -> None:
    place = tmp_path / "one"
    place.write_text("x")
    os.utime(place)
    seen = SeenFiles()
    # As if it had been read within the tick of the clock in which it was written.
    signature = Signature.of(place)
    seen._seen[place] = signature, signature.ctime_ns
    assert not seen.is_unchanged()


def test_a_file_parsed_ahead_is_not_parsed_again(tmp_path: Path) -> None:
    place = tmp_path / "steps" / "ahead.py"
    place.parent.mkdir()
    place.write_text(OPENED % "" + f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    parse_ahead(place)
    assert not (tmp_path / "ran").exists()
    before = module_of.cache_info().misses
    module_of(place.read_bytes(), str(place.resolve()), False, False)
    assert module_of.cache_info().misses == before
    assert [step.name for step in load_file(place)] == ["one"] and (tmp_path / "ran").exists()


def test_a_broken_file_is_parsed_ahead_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "broken.py"
    place.write_text("x = '\\d' is 1 (\n")
    parse_ahead(place)
    parse_ahead(tmp_path / "gone.py")
    assert capfd.readouterr() == ("", "")


def test_an_upgraded_library_is_another_recipe_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = tmp_path / "site-packages"
    (packages / "counter-1.0.dist-info").mkdir(parents=True)
    (packages / "counter-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: counter\nVersion: 1.0\n")
    (packages / "counter.py").write_text("def count(text):\n    return len(text)\n")
    monkeypatch.syspath_prepend(str(packages))
    root = make_project(tmp_path / "toy").root
    (root / "steps" / "counts.py").write_text("import counter\n" + OPENED % "" + "    counter.count('')\n")
    _age(root / "steps")
    opened = Project(root)
    assert opened.recipes["one"].environment["counter"] == "1.0"
    assert opened.reopened().recipes is opened.recipes
    later = packages / "counter-2.0.dist-info"
    (packages / "counter-1.0.dist-info").rename(later)
    (later / "METADATA").write_text("Metadata-Version: 2.1\nName: counter\nVersion: 2.0\n")
    assert Project(root).recipes["one"].environment["counter"] == "2.0"
    assert opened.reopened().recipes["one"].environment["counter"] == "2.0"


FACTORY = """
from pathlib import Path
from ctcore.step import step

def make(limit):
    @step(level="assay", outputs={"n": "n.txt"})
    def one(call):
        call.out("n").write_text(limit)
    return one

one = make(Path(%r).read_text())
"""


def test_a_look_runs_step_files_anew_whatever_they_read(tmp_path: Path) -> None:
    """A value that a step holds may come from anywhere when its file is run: the sensors' process lives for weeks."""
    root, limit = make_project(tmp_path / "toy").root, tmp_path / "limit"
    limit.write_text("1")
    (root / "steps" / "held.py").write_text(FACTORY % str(limit))
    _age(root / "steps")
    before = CtProject(root=str(root)).open().recipes["one"]
    run = CtProject(root=str(root)).to_write()
    _ = run.recipes
    limit.write_text("2")
    assert CtProject(root=str(root)).open().recipes["one"] != before
    assert CtProject(root=str(root)).to_write().steps is run.steps  # a worker refuses a call whose code is another
