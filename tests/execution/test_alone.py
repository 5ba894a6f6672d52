"""A call is alone: its working directory and its temporary files are its own, and gone afterwards."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ctcore.execution.materialize import StepRun
from ctcore.lineage.explain import artifact_path
from ctcore.project import Project
from ctcore.projects.dagster_home import environment as dagster_environment
from tests.helpers.cluster_runs import PROFILE
from tests.helpers.kit import STEPS as COUNTED
from tests.helpers.kit import TOML, Inline, again, assay, make, make_project
from tests.helpers.shell import ct, environment
from tests.helpers.slurm import Slurm
from tools.slurm.processes import wait

TWO = [assay("P1", "S1", "A1", sex="F"), assay("P1", "S1", "A2", sex="F")]
STEP = '''\
"""One step."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ctcore.step import Call, step


@step(level="assay", files=["reads"], outputs={{"n": "n.txt"}})
def counted(call: Call) -> None:
    """What the test wants."""
    {body}
'''
TOOL = """
    subprocess.run(["sh", "-c", f"cat {call.file('reads')} > tool.tmp"], check=True)
    there = call.file("reads").parent.parent / "there"
    (there / call.entity).touch()
    deadline = time.monotonic() + 60
    while len(list(there.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    call.out("n").write_text(Path("tool.tmp").read_text())
"""


def project_of(root: Path, body: str, toml: str = TOML) -> Project:
    made = make_project(root, TWO, steps=STEP.format(body=body.strip()), toml=toml)
    (root / "there").mkdir()
    return made


def contents(project: Project) -> dict[str, str]:
    return {path.parents[1].name: path.read_text() for path in project.store.root.glob("counted/*/*/n.txt")}


def error_of(tmp_path: Path, body: str) -> str:
    project = project_of(tmp_path / "toy", body)
    (one,) = make(project, "counted", "A1", runner=Inline(project))
    assert one.state == "failed"
    return one.why


def test_two_calls_that_write_one_name_are_not_mixed(tmp_path: Path) -> None:
    project = project_of(tmp_path / "toy", TOOL)
    before = sorted(path.name for path in project.root.iterdir())
    assert {one.state for one in make(project, "counted")} == {"made"}
    assert contents(project) == {"A1": "reads of A1\n", "A2": "reads of A2\n"}
    assert {path.name for path in project.root.iterdir()} - set(before) <= {"work"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("os.closerange(3, 100)", "the step closed files that it had not opened (os.closerange?): close only your own"),
        (
            "os.fork()",
            "the step forked and went on in both processes: end the child with os._exit, or use subprocess or"
            " multiprocessing",
        ),
        ("os.killpg(0, 9)", "the call ended its process without a result (signal SIGKILL); it printed nothing"),
        ("os._exit(0)", "the call ended its process without a result (exit code 0); it printed nothing"),
        ("print('so far', flush=True); os._exit(7)", "the call ended its process without a result (exit code 7)"),
    ],
)
def test_what_a_step_does_to_its_process_costs_its_own_call(tmp_path: Path, body: str, said: str) -> None:
    """One reason, of this node (`ctcore.execution.forks`). Calls behind it are made; no empty log is promised."""
    write = "call.out('n').write_text('n')"
    both = f"""
    if call.entity == "A1":
        {body}
    {write}
    """
    project = project_of(tmp_path / "toy", both, TOML.replace("workers = 2", "workers = 1"))
    failed, made = sorted(make(project, "counted"), key=lambda one: one.node)
    assert (made.node[1], made.state) == ("A2", "made")
    assert failed.state == "failed" and failed.why.startswith(said) and "\n" not in failed.why
    assert not list(project.store.root.glob("counted/A1/*"))
    logs = ct("-C", project.root, "logs", "counted/A1")
    assert ("see its log" in failed.why) == ("so far" in logs.out)
    why = ct("-C", project.root, "why", "counted/A1").out
    assert f"counted/A1 is failed: {failed.why}" in why and ("(log: " in why) == bool(failed.log), why
    assert logs.out or logs.err == f"counted/A1 printed nothing; its last call failed: {failed.why}\n"


@pytest.mark.slow
def test_two_array_tasks_that_write_one_name_are_not_mixed(tmp_path: Path, quiet_slurm: Slurm) -> None:
    from ctcore.execution.slurm.runner import SlurmRunner

    project = project_of(tmp_path / "toy", TOOL, TOML + PROFILE)
    runner = SlurmRunner(project, project.settings.slurm["test"])
    assert {one.state for one in make(project, "counted", runner=runner)} == {"made"}
    assert contents(project) == {"A1": "reads of A1\n", "A2": "reads of A2\n"}
    assert not list(project.root.rglob("tool.tmp"))


def test_a_call_begins_in_an_empty_private_folder(tmp_path: Path) -> None:
    body = """
    assert os.listdir() == [] and os.listdir(tempfile.gettempdir()) == []
    assert os.environ["PWD"] == os.getcwd()
    assert os.stat(tempfile.gettempdir()).st_mode & 0o077 == 0
    call.out("n").write_text(f"{os.getcwd()} {os.environ['TMPDIR']} {os.environ['TMP']} {tempfile.mkdtemp()}")
    """
    project = project_of(tmp_path / "toy", body)
    assert {one.state for one in make(project, "counted")} == {"made"}
    words = {who: text.split() for who, text in contents(project).items()}
    assert not set(words["A1"]) & set(words["A2"])
    assert not any(os.path.exists(place) for place in (*words["A1"], *words["A2"]))
    assert Path(words["A1"][3]).parent == Path(words["A1"][1]) == Path(words["A1"][2])


def test_a_changed_environment_is_not_there_for_the_next_call(tmp_path: Path) -> None:
    body = """
    assert "CT_TEST_LEFT" not in os.environ
    os.environ["CT_TEST_LEFT"] = "x"
    os.environ.pop("PATH")
    os.chdir("/")
    Path(tempfile.gettempdir(), "x").touch()
    call.out("n").write_text("1")
    """
    project = project_of(tmp_path / "toy", body)
    before = os.getcwd(), dict(os.environ), tempfile.gettempdir()
    assert {one.state for one in make(project, "counted", runner=Inline(project))} == {"made"}
    assert before == (os.getcwd(), dict(os.environ), tempfile.gettempdir())


@pytest.mark.parametrize("visible", [None, "0,1"])
def test_a_call_sees_the_gpus_that_the_run_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    steps = COUNTED.replace(
        "    n = len(", "    import os; print(repr(os.environ.get('CUDA_VISIBLE_DEVICES')))\n    n = len(", 1
    )
    project = make_project(tmp_path / "toy", [assay("P1", "S1", "A1")], steps=steps)
    (one,) = make(project, "counted", "A1")
    assert one.log is not None and Path(one.log).read_text() == f"{visible!r}\n"


def test_a_steps_processes_share_its_folders_and_sockets(tmp_path: Path) -> None:
    body = """
    import multiprocessing
    code = "import os, tempfile; print(os.getcwd(), tempfile.gettempdir())"
    said = subprocess.check_output([sys.executable, "-c", code])
    assert said.decode().split() == [os.getcwd(), tempfile.gettempdir()]
    with multiprocessing.get_context("spawn").Manager() as manager:
        shared = manager.dict(n=1)
        call.out("n").write_text(str(shared["n"]))
    """
    project = project_of(tmp_path / ("long" * 20) / "toy", body)
    assert {one.state for one in make(project, "counted", runner=Inline(project))} == {"made"}


def test_a_file_left_under_an_outputs_name_is_that_output(tmp_path: Path) -> None:
    project = project_of(tmp_path / "toy", 'Path("n.txt").write_text(call.entity); Path("more.txt").touch()')
    assert {one.state for one in make(project, "counted", runner=Inline(project))} == {"made"}
    assert contents(project) == {"A1": "A1", "A2": "A2"}


def test_an_output_written_to_its_place_goes_first(tmp_path: Path) -> None:
    project = project_of(tmp_path / "toy", 'Path("n.txt").write_text("draft"); call.out("n").write_text("right")')
    make(project, "counted", runner=Inline(project))
    assert contents(project) == {"A1": "right", "A2": "right"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('os.mkdir("d"); Path("d/n.txt").touch()', "the step left d/n.txt in its working directory"),
        ('Path("other.txt").touch()', "the step left other.txt in its working directory"),
        ('(call.folder / "m.txt").touch()', "the step wrote m.txt into call.folder"),
    ],
)
def test_an_output_that_is_not_there_is_told_with_where_it_went(tmp_path: Path, body: str, said: str) -> None:
    why = error_of(tmp_path, body)
    assert f'output n (n.txt) was not written; but {said}: write it to call.out("n")' in why


@pytest.mark.parametrize(
    "body",
    [
        'open("genome.txt")',
        'subprocess.run(["sh", "-c", "cat genome.txt"], check=True)',
        'subprocess.run(["cat", "genome.txt"], check=True)',
    ],
)
def test_a_missing_project_file_is_reported_with_a_way_out(tmp_path: Path, body: str) -> None:
    why = error_of(tmp_path, body)
    assert "genome.txt lies in the project, and a call has a working directory of its own" in why
    assert '[references.KEY] path = "genome.txt"' in why


@pytest.mark.parametrize("how", ["raise ValueError", "sys.exit(3)", 'os.mkdir("d"); os.chmod("d", 0o555)'])
def test_nothing_is_left_of_a_call_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    project = project_of(tmp_path / "toy", f'Path("x").touch(); {how}')
    assert {one.state for one in make(project, "counted")} == {"failed"}
    assert list((tmp_path / "tmp").iterdir()) == []
    assert list(project.store.staging.glob("[!.]*")) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_call_that_was_ended(tmp_path: Path, number: signal.Signals) -> None:
    """SIGKILL leaves it no time: the next worker on that machine and the store's sweep remove it."""
    (tmp_path / "tmp").mkdir()
    body = 'Path(tempfile.gettempdir(), "x").touch(); Path(call.file("reads").parent.parent, "there", "x").touch(); '
    project = project_of(tmp_path / "toy", f"{body}\n    time.sleep(60)")
    code = (
        "import sys; from pathlib import Path; from ctcore.project import Project; from tests.helpers.kit import make\n"
        "print(make(Project.find(Path(sys.argv[1])), 'counted', 'A1'))"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code, str(project.root)], env=environment(TMPDIR=str(tmp_path / "tmp"))
    )
    assert wait((project.root / "there" / "x").exists, 60)
    (begun,) = (tmp_path / "tmp").glob("ct-call-*")
    worker = int(begun.name.split("-")[3])
    os.kill(worker, number)
    run.wait(60)
    if number == signal.SIGKILL:
        assert begun.exists()
        (project.root / "steps" / "toy.py").write_text(STEP.format(body='call.out("n").touch()'))
        again = subprocess.run(
            [sys.executable, "-c", code, str(project.root)],
            env=environment(TMPDIR=str(tmp_path / "tmp")),
            check=True,
            capture_output=True,
            text=True,
        )
        assert "state='made'" in again.stdout
    assert list((tmp_path / "tmp").glob("ct-call-*")) == []
    assert list(project.store.staging.glob("[!.]*")) == []


def test_dagsters_runs_and_repeated_calls_see_one_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = (
        "    import json, os\n"
        "    own = ('TMP', 'TEMP', 'PWD', 'SUBMITIT_')\n"
        "    seen = {k: v for k, v in os.environ.items() if not k.startswith(own)}\n"
        "    call.out('n').write_text(json.dumps(seen, sort_keys=True))\n"
        "    return {}\n"
    )
    steps = COUNTED.replace("    n = len(", f"{told}    n = len(", 1)
    project = make_project(tmp_path / "toy", [assay("P1", "S1", "A1", sex="F")], steps=steps)
    with monkeypatch.context() as patch:
        for name, value in dagster_environment(project).items():
            patch.setenv(name, value)
        patch.setenv("DAGSTER_RUN_JOB_NAME", "a job")
        assert [one.state for one in make(project, "counted")] == ["made"]
    ours = artifact_path(project, ("counted", "A1"), "n").path.read_text()
    assert "PATH" in ours and "CT_PROJECT" not in ours and "DAGSTER" not in ours and str(project.root) not in ours
    (one,) = StepRun(again(project), project.steps["counted"], ["A1"], again=True).outcomes()
    assert one.same, one
