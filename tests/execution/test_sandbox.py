"""`[run] sandbox = "strict"`: a call sees what it declares, and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctcore.execution import sandbox
from ctcore.project import Project
from tests.execution.test_watch import STEP, TWO
from tests.helpers.kit import ROWS, STEPS, TOML, Inline, again, assay, fail, make, make_all, make_project
from tests.helpers.shell import quiet_dagster, shell

STRICT = TOML.replace("workers = 2", 'workers = 2\nsandbox = "strict"')


@pytest.fixture
def strict() -> None:
    """Where there can be none, these tests skip: in many containers it is not allowed, whoever asks."""
    if why := sandbox.refusal():
        pytest.skip(why)


def project_of(root: Path, body: str) -> Project:
    return make_project(root, TWO, steps=STEP.format(body=body.strip()), toml=STRICT)


def why(project: Project) -> str:
    (one,) = make(project, "counted", "A1", runner=Inline(project))
    assert one.state == "failed"
    return one.why


@pytest.mark.usefixtures("strict")
def test_the_toy_project_is_made_as_without_a_sandbox(tmp_path: Path) -> None:
    shut, open_ = make_project(tmp_path / "a", ROWS, STEPS, STRICT), make_project(tmp_path / "b", ROWS, STEPS)
    assert set(make_all(shut, inline=False).values()) == {"made"} == set(make_all(open_).values())
    for path in open_.store.root.glob("*/*/*/MANIFEST.b3"):
        assert (shut.store.root / path.relative_to(open_.store.root)).read_text() == path.read_text()
    sidecars = [json.loads(path.read_bytes()) for path in shut.store.root.glob("*/*/*/ct.json")]
    assert {str(side["undeclared"]) for side in sidecars} == {"[]"}
    assert list(shut.store.staging.glob("[!.]*")) == []


@pytest.mark.usefixtures("strict")
def test_declared_files_have_their_indexes_and_tools_work(tmp_path: Path) -> None:
    body = """
    call.file("reads").read_text(), call.reference("genome").read_text()
    Path(f"{call.reference('genome')}.fai").read_text()
    Path("own").write_text("x"), call.scratch("s").write_text("x"), Path(tempfile.mkdtemp(), "x").write_text("x")
    Path("/tmp/own").write_text("x"), Path.home().joinpath("own").write_text("x")
    import numpy, pandas, sqlite3
    from ._shared import X
    subprocess.run("sort < own | tee sorted", shell=True, check=True)
    (HERE / "table.tsv").read_text()
    Path("n.txt").write_text(X)
    """
    project = project_of(tmp_path / "toy", body)
    (tmp_path / "toy" / "steps" / "table.tsv").write_text("x")
    (tmp_path / "toy" / "genome.txt.fai").write_text("x")
    (tmp_path / "toy" / "steps" / "_shared.py").write_text("X = '1'\n")
    (one,) = make(project, "counted", "A1", runner=Inline(project))
    assert one.state == "made", one.why
    assert not (Path.home() / "own").exists() and not Path("/tmp/own").exists()


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(
    "body",
    [
        "(HERE.parent / 'panel.tsv').read_text()",
        "(call.file('reads').with_name('A2.txt')).read_text()",
        "call.reference('genome').write_text('x')",
        "import socket; socket.create_connection(('127.0.0.1', 9), 1)",
    ],
)
def test_what_is_not_declared_cannot_be_reached(tmp_path: Path, body: str) -> None:
    project = project_of(tmp_path / "toy", body)
    (tmp_path / "toy" / "panel.tsv").write_text("x")
    assert "Error" in why(project)
    assert (tmp_path / "toy" / "genome.txt").read_text() == "ACGT\n"


@pytest.mark.usefixtures("strict")
def test_of_many_inputs_the_folder_shows_only_the_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = """    there = call.many("specimens")[0]["n"].parents[2].iterdir()
    assert sorted(one.name for one in there if any(one.iterdir())) == ["S1", "S2"]
    rows = ["""
    steps = STEPS.replace("    rows = [", look)
    project = make_project(tmp_path / "toy", [*ROWS, assay("P3", "S3", "A4", sex="F")], steps, STRICT)
    make(project, "counted", runner=Inline(project)), make(project, "merged", runner=Inline(project))
    fail(project, "S3")
    monkeypatch.setattr(sandbox, "_MANY", 1)
    (one,) = make(again(project), "joined", runner=Inline(project))
    assert one.state == "made", one.why


def test_more_places_than_bubblewrap_takes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "refusal", lambda: None)
    monkeypatch.setattr(sandbox, "_MOST", 30)
    said = why(project_of(tmp_path / "toy", "pass"))
    assert said.startswith('sandbox = "strict": bubblewrap lays 10 places before a call, this one needs ')


@pytest.mark.usefixtures("strict")
def test_what_is_written_elsewhere_is_written_nowhere(tmp_path: Path) -> None:
    project = project_of(
        tmp_path / "toy", "(HERE / 'new').write_text('x'), os.makedirs(HERE.parent / 'a', exist_ok=True)"
    )
    make(project, "counted", "A1", runner=Inline(project))
    assert not (tmp_path / "toy" / "steps" / "new").exists() and not (tmp_path / "toy" / "a").exists()


@pytest.mark.slow
def test_a_run_without_its_sandbox_is_refused_before_work(tmp_path: Path) -> None:
    root = quiet_dagster(project_of(tmp_path / "toy", "pass").root)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bwrap").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "bwrap").chmod(0o755)
    said = shell("-C", root, "run", env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})
    assert said.code == 1
    assert said.err.splitlines()[-1] == (
        'ct: sandbox = "strict" under [run] in ct.toml: bubblewrap cannot work on this machine (exit code 1): '
        'have user namespaces allowed here, or say sandbox = "watch" under [run] in ct.toml'
    )


@pytest.mark.usefixtures("strict")
def test_a_file_that_is_hidden_is_told_as_such_and_not_as_gone(tmp_path: Path) -> None:
    project = project_of(tmp_path / "toy", "(HERE.parent / 'panel.tsv').read_text()")
    (tmp_path / "toy" / "panel.tsv").write_text("x")
    said = why(project)
    assert f'{tmp_path}/toy/panel.tsv is there, and [run] sandbox = "strict" shows a step only what it declares' in said


@pytest.mark.usefixtures("strict")
def test_a_broken_contract_and_a_lost_process_say_why(tmp_path: Path) -> None:
    gone = why(project_of(tmp_path / "a", "return"))
    assert "output n (n.txt) was not written" in gone
    killed = why(project_of(tmp_path / "b", "os.kill(os.getpid(), 9)"))
    assert "the call ended without a result (exit code 137)" in killed


def test_without_bubblewrap_the_way_out_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from ctcore.execution.sandbox import refusal; print(refusal())"
    bin_ = tmp_path / "bin"
    bin_.mkdir()

    def said() -> str:
        environment = {**os.environ, "PATH": str(bin_)}
        return subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)

    way = 'or say sandbox = "watch" under [run] in ct.toml\n'
    assert said() == (
        'sandbox = "strict" under [run] in ct.toml needs bubblewrap, and there is no bwrap on the PATH here: '
        f"install it, {way}"
    )
    (bin_ / "bwrap").write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    (bin_ / "bwrap").chmod(0o755)
    assert said() == (
        'sandbox = "strict" under [run] in ct.toml: bubblewrap cannot work on this machine '
        f"(bwrap: No permissions to create new namespace): have user namespaces allowed here, {way}"
    )
    monkeypatch.setattr(sandbox, "refusal", lambda: "no bwrap")
    assert why(project_of(tmp_path / "toy", "pass")) == "no bwrap"
