"""What started programs read and run is seen, and starting them is as it was."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctcore.execution.strace import Tracer, Worth, find_tracer
from tests.helpers.kit import TOML, Inline, assay, make, make_project
from tools.slurm.processes import wait

pytestmark = pytest.mark.skipif(find_tracer() is None, reason="strace is not here, or may not trace")
STEP = '''"""A step that starts a script."""

import os
import subprocess
from pathlib import Path

from ctcore.step import Call, step

HERE = Path(__file__).parent.parent


@step(level="assay", files=["reads"], code=("run.sh",), outputs={{"n": "n.txt"}})
def counted(call: Call) -> None:
    """What the test wants."""
    {body}
    call.out("n").write_text("1")
'''
RUN = 'subprocess.run(["bash", str(Path(__file__).parent / "run.sh")], check=True)'
Traced = Callable[..., dict[str, str]]


@pytest.fixture
def traced(tmp_path: Path) -> Traced:
    """What is named where a script of these lines is run: what, and its kind."""

    def run(script: str, body: str = RUN, how: str = "sparing", **files: str) -> dict[str, str]:
        root = tmp_path / "toy"
        toml = f'{TOML}\ntrace = "{how}"\n'
        project = make_project(root, [assay("P1", "S1", "A1")], steps=STEP.format(body=body), toml=toml)
        for name, text in {"steps__run": script, **files}.items():
            path = root / (name.replace("__", "/") + ".sh")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text.replace("ROOT", str(root)))
            path.chmod(0o755)
        (one,) = make(project, "counted", "A1", runner=Inline(project))
        assert one.state == "made", one.why
        (path,) = project.store.root.glob("counted/A1/*/ct.json")
        return {told["what"]: told["kind"] for told in json.loads(path.read_bytes())["undeclared"]}

    return run


def test_a_scripts_sourced_and_computed_names_are_reported(traced: Traced) -> None:
    script = 'D=ROOT; . $D/lib.sh; for n in panel "gaps > & ü"; do while read x; do :; done < "$D/$n.sh"; done\n'
    found = traced(script, lib="A=1\n", panel="x\n", **{"gaps > & ü": "y\n"})
    assert found == dict.fromkeys(("lib.sh", "panel.sh", "gaps > & ü.sh"), "file")


def test_a_relative_path_is_of_the_scripts_own_folder(traced: Traced) -> None:
    assert traced("cd ROOT && cat panel.sh; ./tool.sh\n", panel="x", tool="#!/bin/sh\n:\n") == {
        "panel.sh": "file",
        "tool.sh": "file",
    } | {"tool.sh": "program"}


def test_what_a_program_makes_itself_is_not_named(traced: Traced) -> None:
    assert traced("echo x > ROOT/made.txt; cat ROOT/made.txt; echo y > y; cat y; sort -o z y; cat z\n") == {
        "/usr/bin/sort": "program"
    }


def test_programs_of_a_script_are_named_their_parts_are_not(traced: Traced) -> None:
    inner = "#!/usr/bin/env perl\nsystem('sort /dev/null');\n"
    found = traced("tar --use-compress-program=gzip -cf x.tar run 2>/dev/null || true\nROOT/inner.sh\n", inner=inner)
    assert {what: kind for what, kind in found.items() if kind == "program"} == {
        "/usr/bin/tar": "program",
        "inner.sh": "program",
        "/usr/bin/perl": "program",
        "/usr/bin/sort": "program",
    }


@pytest.mark.parametrize(
    "body",
    [
        "os.system(f'read x < {HERE}/panel.sh')",
        "os.popen(f'read x < {HERE}/panel.sh').read()",
        "subprocess.run(f'read x < {HERE}/panel.sh', shell=True, check=True)",
        "subprocess.run(['sh', '-c', 'read x < panel.sh'], cwd=HERE, env={'PATH': '/usr/bin:/bin'}, check=True)",
        "subprocess.check_output(['xargs', 'cat'], input=f'{HERE}/panel.sh'.encode())",
        "import multiprocessing as m; p = m.get_context('fork').Process(target=os.system, "
        "args=(f'read x < {HERE}/panel.sh',)); p.start(); p.join()",
    ],
)
def test_however_a_step_starts_a_program_it_is_traced(traced: Traced, body: str) -> None:
    assert traced("", body, panel="x\n").get("panel.sh") == "file"


def test_a_project_may_want_none_of_it(traced: Traced) -> None:
    assert "panel.sh" not in traced("read x < ROOT/panel.sh\n", how="off", panel="x\n")


@pytest.fixture
def tracer(tmp_path: Path) -> Iterator[Tracer]:
    with Tracer(tmp_path, lambda: "here") as found:
        yield found
    assert subprocess.Popen.__init__.__module__ == "subprocess"


def test_a_traced_program_is_started_and_ends_as_ever(tracer: Tracer, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        subprocess.run(["sh", "-c", "exit 7"], check=True)
    assert (failed.value.returncode, failed.value.cmd) == (7, ["sh", "-c", "exit 7"])
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        subprocess.run(["no-such-program"], check=False)
    for name, begins in (("gone", b"#!/opt/gone/python\n"), ("other", b"\x7fELF" + b"\0" * 100)):
        (tmp_path / name).write_bytes(begins)
        (tmp_path / name).chmod(0o755)
        with pytest.raises(OSError, match=r"No such file|Exec format") as refused:
            subprocess.run([str(tmp_path / name)], check=False)
        assert refused.value.filename == str(tmp_path / name)
    (tmp_path / "text").write_text("no program")
    with pytest.raises(PermissionError):
        subprocess.run([str(tmp_path / "text")], check=False)
    assert subprocess.run(["cat"], input=b"x" * 100_000, stdout=subprocess.PIPE, check=True).stdout == b"x" * 100_000
    assert subprocess.run(["sh", "-c", "echo $0 $1", "a", "b c"], capture_output=True, check=True).stdout == b"a b c\n"
    assert os.system("exit 3") == 3 << 8
    sleeping = subprocess.Popen(["sleep", "60"], start_new_session=True)
    assert os.getpgid(sleeping.pid) == sleeping.pid
    assert wait(lambda: Path(f"/proc/{sleeping.pid}/comm").read_text() == "sleep\n", 20)  # and not yet the tracer
    sleeping.kill()
    assert sleeping.wait(10) == -9
    code = "import os, sys; print(os.getpid(), os.getppid())"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.communicate()[0].split() == [str(child.pid), str(os.getpid())]


def test_a_program_with_privileges_of_its_own_is_not_traced(tmp_path: Path, traced: Traced) -> None:
    """The tracer takes them away: the call is made again without it, and the calls after it are not traced."""
    grep = tmp_path / "grep"
    shutil.copy("/usr/bin/grep", grep)
    grep.chmod(0o4755)
    body = f"""subprocess.run(["bash", "-c", "{grep} TracerPid /proc/self/status > ROOT/seen"], check=True)"""
    body = body.replace("ROOT", str(tmp_path))
    traced("", body, how="always")
    assert (tmp_path / "seen").read_text().split() == ["TracerPid:", "0"]
    (kept,) = (tmp_path / "toy/work/traced").iterdir()
    assert json.loads(kept.read_bytes()) == {"hindered": str(grep)}


def test_a_step_may_trace_its_own_programs(tmp_path: Path, traced: Traced) -> None:
    """A process has one tracer: where the step wants to be it, ct is none."""
    body = f"""subprocess.run(["bash", "-c", "strace -o {tmp_path}/seen true"], check=True)"""
    traced("", body, how="always")
    assert "execve" in (tmp_path / "seen").read_text()


def test_a_builtin_of_a_shell_is_no_program(traced: Traced) -> None:
    assert traced("kill -0 $$; echo x\n") == {}


def test_cheap_calls_are_traced_always_others_once_a_version(tmp_path: Path) -> None:
    one, other = (Worth(tmp_path, {"code": name}) for name in "ab")
    assert one.wants("sparing")
    one.cost(0.5)
    assert not one.wants("sparing")
    assert other.wants("sparing")
    one.cost(0.01)
    assert one.wants("sparing")


def test_what_tracing_costs_is_told_of_the_first_call(tmp_path: Path) -> None:
    body = "[subprocess.run(['true'], check=True) for _ in range(3)]"
    project = make_project(
        tmp_path / "toy", [assay("P1", "S1", f"A{at}") for at in range(3)], steps=STEP.format(body=body)
    )
    (project.root / "steps" / "run.sh").write_text("")
    assert [one.state for one in make(project, "counted", runner=Inline(project))] == ["made"] * 3
    (kept,) = (project.work / "traced").iterdir()
    assert 0.03 < json.loads(kept.read_bytes())["share"] < 50
