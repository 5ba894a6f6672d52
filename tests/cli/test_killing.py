"""Every command that writes, killed with -9 at several moments: all is consistent, and the same command again ends as
if nothing had been. The list of commands is that of the command line, so that none can be forgotten.
"""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest

from ctcore.catalog.event_log import check_chain
from ctcore.cli import cli
from ctcore.inputs.current import forget
from ctcore.integrity.catalog_check import disagreements
from ctcore.project import Project
from ctcore.util.clock import today
from tests.helpers.killing import Moments, forked
from tests.helpers.kit import again, make_all, make_project
from tests.helpers.shell import ct
from tests.integrity.test_recover import facts

Words = tuple[str, ...]
# Each command that writes, with how it is called here. {out} is a new folder.
WRITING: dict[str, Words] = {
    "init": ("init", "{out}/new"),
    "register": ("register", "more.csv", "--update", "patient.age"),
    "schema apply": ("schema", "apply"),
    "status": ("status",),
    "plan": ("plan", "--save", "{out}/plan.json"),
    "show": ("show", "counted/A3", "--excluded", "--reason", "the audit of 2026"),
    "path": ("path", "counted/A3", "--excluded", "--reason", "the audit of 2026"),
    "accept": ("accept", "counted/A1", "--reason", "the same letters"),
    "cohort": ("cohort", "--excluded", "--reason", "the audit of 2026"),
    "query": ("query", "SELECT 1", "--excluded", "--reason", "the audit of 2026"),
    "export": ("export", "{out}/all.json"),
    "dashboard": ("dashboard", "{out}/page.html"),
    "verify": ("verify",),
    "recover": ("recover",),
    "reference index": ("reference", "index", "other"),
    "reference add": ("reference", "add", "other", "other.fa", "--version", "1"),
    "reference bump": ("reference", "bump", "genome", "other.fa", "--version", "2", "--reason", "new", "--yes"),
    "record": ("record", "pathology", "A1", "grade=G1"),
    "adopt": ("adopt", "outside/A1", "--output", "bam=other.fa", "--made-by", "sarek 3.4"),
    "batches": ("batches", "--by", "assay.library", "--excluded", "--reason", "the audit of 2026"),
    "qc add": ("qc", "add", "assay/A2", "qc_fail", "--reason", "low yield"),
    "qc resolve": ("qc", "resolve", "specimen/S1", "--reason", "it was not"),
    "purge": ("purge", "P2", "--confirm", "P2", "--reason", "withdrawal form 7"),
    "consent set": ("consent", "set", "P1", "pending"),
    "consent restore": (
        *("consent", "restore", "P2", "--authority", "IRB", "--reference", "4/26", "--date", today()),
        *("--confirmed-by", "Ann", "--confirmed-by", "Bob"),
    ),
}
READING = {
    "schema show",
    "schema check",
    "schema diff",
    "schema editor",
    "stale",
    "why",
    "steps check",
    "trace",
    "impact",
    "diff",
    "logs",
}
READING |= {"reference list", "qc list", "qc history", "consent list", "consent history"}
ELSEWHERE = {
    "run": "tests/execution/test_crash.py",
    "dev": "it only starts Dagster",
    "jobs": "tests/slurm/test_slurm_jobs.py",
    "heatmap": "as dashboard, in seconds instead of moments",
}
GENOME = '\n[references.other]\npath = "other.fa"\nversion = "1"\nkind = "genome"\n'
ELSEWHERE |= {
    f"projects {verb}": "tests/projects/test_projects.py" for verb in ("add", "list", "open", "remove", "set")
}
ELSEWHERE["projects workspace"] = "tests/projects/test_projects.py"
OUTSIDE = 'made_elsewhere = true\nlevel = "assay"\noutputs = { bam = "a.bam" }\n'
FASTA = ">chr1\nACGT\n"


def commands() -> Iterator[str]:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        found = cli.get_command(context, name)
        if isinstance(found, click.Group):
            yield from (f"{name} {inner}" for inner in found.list_commands(context))
        else:
            yield name


def test_every_command_says_how_it_stands_being_killed() -> None:
    assert set(commands()) == {*WRITING, *READING, *ELSEWHERE}


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which each of these commands has something to do."""
    project = make_project(tmp_path_factory.mktemp("lived") / "toy")
    root = project.root
    (root / "steps/outside.toml").write_text(OUTSIDE)
    project = again(project)
    make_all(project)
    (root / "other.fa").write_text(FASTA)
    toml = (root / "ct.toml").read_text()
    toml += '\n[analyses.pathology]\nlevel = "assay"\ncolumns.grade = {}\n'
    (root / "ct.toml").write_text(toml.replace('age = "integer"', 'age = "integer"\nweight = "real"'))
    (root / "reads/A1.txt").write_text("reads of A_\n")
    (root / "more.csv").write_text("patient_id,age\nP1,41\nP2,51\n")
    for words in (
        ("qc", "add", "specimen/S1", "qc_warn", "--reason", "dark"),
        ("consent", "set", "P2", "full", "--form", "1"),
        ("consent", "set", "P2", "revoked", "--form", "2"),
    ):
        assert ct("-C", root, *words).code == 0
    (folder,) = (one for one in (root / "store/counted/A2").iterdir() if one.is_dir())
    folder.chmod(0o755)
    (folder / "n.txt").unlink()
    assert again(project).catalog.open()
    with project.catalog.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    project.catalog.engine.dispose()
    return root


def copy_of(lived: Path, place: Path, command: str) -> Path:
    shutil.copytree(lived, place / "toy")
    (place / "out").mkdir()
    if command == "recover":
        for path in (place / "toy").glob("catalog.db*"):
            path.unlink()
    if command == "reference index":
        with (place / "toy/ct.toml").open("a") as stream:
            stream.write(GENOME)
    if command == "accept":
        time.sleep(0.1)  # a file that was just written is looked at once more, and that is one moment more
        ct("-C", place / "toy", "verify", "--quick")
    return place


def called(place: Path, command: str, moments: Moments | None = None) -> int:
    """The command as a process of its own: its exit code, or minus the signal."""
    words = [word.format(out=place / "out") for word in WRITING[command]]
    before: Sequence[str] = () if command == "init" else ("-C", str(place / "toy"))

    def work() -> int:
        forget()
        os.chdir(place / "toy")
        if moments is not None:
            moments.watch()
        said = ct(*before, *words)
        os.write(1, f"{said.code} {said.out[-300:]} {said.err}".encode())
        return said.code

    return forked(work, place / "log")


def state(place: Path) -> dict[str, object]:
    """All that is true, and the files that were written; without times."""
    found: dict[str, object] = {}
    for name, rows in facts(Project.find(place / "toy")).items():
        if name != "event":  # whether something was shown once or twice is no part of it
            found[name] = [tuple(cell for cell in row if not _is_time(cell)) for row in rows]
    databases = (".db", ".db-wal", ".db-shm")  # what is in which of them depends on who closed one last
    listed = (path for path in (place / "out").rglob("*") if path.is_file() and path.suffix not in databases)
    files = sorted(path for path in listed if not path.name.startswith("."))  # a part of one is hidden, and no harm
    found["out"] = [(str(path.relative_to(place)), path.stat().st_size > 0) for path in files]
    found["left"] = sorted(path.name for path in (place / "toy").iterdir() if not path.name.startswith("catalog.db"))
    return found


def _is_time(cell: object) -> bool:
    return isinstance(cell, str) and cell[4:5] == "-" and cell.endswith("Z")


def chosen(names: list[str]) -> set[int]:
    """The moments right before and after the last commit; of what commits nothing, the middle and the last one."""
    commits = [at for at, name in enumerate(names) if name == "commit"]
    return {commits[-1], min(commits[-1] + 1, len(names) - 1)} if commits else {len(names) // 2, len(names) - 1}


@pytest.mark.parametrize("command", list(WRITING))
def test_a_killed_command_ends_the_same_when_repeated(lived: Path, tmp_path: Path, command: str) -> None:
    whole = copy_of(lived, tmp_path / "whole", command)
    code = called(whole, command, Moments(tmp_path / "moments"))
    assert code in (0, 3), (whole / "log").read_text()
    wanted, names = state(whole), (tmp_path / "moments").read_text().splitlines()
    assert names, "it writes nothing"
    for at in sorted(chosen(names)):
        place = copy_of(lived, tmp_path / f"at{at}", command)
        assert called(place, command, Moments(tmp_path / "moments", at)) == -9, (at, names[at])
        if command not in ("recover", "init"):
            _consistent(place)
        ended = called(place, command)
        assert ended in (0, 2, 3), (at, names[at], (place / "log").read_text())
        _consistent(place)
        assert state(place) == wanted, (at, names[at], (place / "log").read_text())


def _consistent(place: Path) -> None:
    project = Project.find(place / "toy")
    assert disagreements(project) == []
    assert check_chain(project.catalog.journal.read(), "line") == []
    project.catalog.engine.dispose()
