"""`ct run` and `ct register` with the real Dagster behind them: the shell's side of making things. Seconds a test."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ctcore.project import Project
from ctcore.projects import leases
from tests.cli.test_cli_trouble import fill, mounted
from tests.helpers.kit import ROWS, STEPS, TOML, assay, fail, make_project, reasons, write_sheet
from tests.helpers.shell import command, contents, environment, quiet_dagster, shell
from tests.lineage.test_story import CHANCE

pytestmark = pytest.mark.slow
ONE = [assay("P1", "S1", "A1", sex="F")]


def half_made(root: Path) -> list[Path]:
    """What is in the store besides whole artifacts: there must be nothing."""
    store = Project(root).store
    folders = [path for path in store.root.glob("[!.]*/*/*") if path.is_dir()]
    odd = [path for path in folders if not {"MANIFEST.b3", "ct.json"} <= {one.name for one in path.iterdir()}]
    return [*odd, *(path for path in store.staging.iterdir() if not path.name.startswith("."))]


def until(happened: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_a_toy_project_from_the_sheet_to_fresh(tmp_path: Path) -> None:
    root = quiet_dagster(make_project(tmp_path / "p", ONE).root)
    added = shell("-C", root, "register", write_sheet(root, ROWS), "--json")
    assert added.code == 0 and json.loads(added.out)["new"]["assay"] == ["A2", "A3"]
    assert "new partitions in Dagster" in added.err
    some = shell("-C", root, "run", "merged/S1")
    assert some.code == 0 and "3 made, 0 reused, 0 not made" in some.err
    rest = shell("-C", root, "run")
    assert rest.code == 0 and "3 made, 0 reused, 0 not made" in rest.err and rest.out == ""
    assert shell("-C", root, "status").code == 0
    again = shell("-C", root, "run")
    assert again.code == 0 and again.err == "everything is fresh: nothing to do\n"
    fail(Project.find(root), "A3")
    barred = shell("-C", root, "run", "-s", "counted/A3*")
    assert barred.code == 0 and barred.err.startswith("nothing may run: 1 node excluded\n  counted/A3: "), barred
    assert "qc_fail" in barred.err
    wrong = shell("-C", root, "run", "counted/A1", "joined/al")
    assert (wrong.code, wrong.out) == (2, "")
    assert wrong.err == "ct: no cohort 'al' is declared; did you mean 'all'?\n"


def test_another_runs_work_is_left_alone_and_not_fresh(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", ONE)
    quiet_dagster(project.root)
    leases.take(project, [("its key", ("counted", "A1"))], None)  # this process lives
    said = shell("-C", project.root, "run", "counted")
    assert (said.code, said.err) == (0, "left to another run that makes them now: 1 (`ct status`)\n")


def test_damaged_reads_fail_only_their_own_call(tmp_path: Path) -> None:
    root = tmp_path / "three"
    assert shell("init", root, "--example", "three_people").code == 0
    assert shell("-C", root, "register").code == 0
    reads = root / "reads"
    cut, empty, gone = (
        reads / "HG00100-3815246_R1.fastq.gz",
        reads / "HG00100-6503965_R2.fastq.gz",
        reads / "HG00100-g1k-sc-HG00100-A_R1.fastq.gz",
    )
    cut.write_bytes(cut.read_bytes()[:2000])
    empty.write_bytes(b"")
    gone.unlink()
    said = shell("-C", root, "run", "reads_qc")
    assert said.code == 1 and "2 made, 0 reused, 3 not made" in said.err
    report = said.err.split("not made\n")[1].splitlines()
    messages = [line.strip() for line in report if not line.startswith("    log: ")]
    assert len(messages) == 3
    for name, path, words, way in (
        ("HG00100-3815246", cut, "is truncated", "fetch it again"),
        ("HG00100-6503965", empty, "is empty", "fetch it again"),
        ("HG00100-g1k-sc-HG00100-A", gone, "No such file or directory", "put it back, then run again"),
    ):
        mine = [line for line in messages if line.startswith(f"reads_qc/{name} failed: {path}")]
        assert len(mine) == 1 and words in mine[0] and way in mine[0]
    assert sorted(path.name[:7] for path in (root / "store" / "reads_qc").iterdir()) == ["HG00101", "HG00102"]
    assert half_made(root) == []
    assert shell("-C", root, "verify").code == 3, "the file that is gone is a finding"
    assert "is failed: " in shell("-C", root, "why", "reads_qc/HG00100-3815246").out


def test_a_failing_step_costs_its_node_and_those_waiting(tmp_path: Path) -> None:
    steps = STEPS.replace("    n = len(", '    if call.entity == "A3":\n        raise KeyError("odd")\n    n = len(')
    root = quiet_dagster(make_project(tmp_path / "p", steps=steps).root)
    said = shell("-C", root, "run", "merged")
    assert said.code == 1 and "3 made, 0 reused, 2 not made" in said.err
    assert "counted/A3 failed: KeyError: 'odd'" in said.err and "merged/S2 blocked" in said.err
    log = next(line.split("log: ")[1] for line in said.err.splitlines() if "log: " in line)
    assert "Traceback" in Path(log).read_text(), "the traceback is in the log"
    assert half_made(root) == []


def test_ctrl_c_ends_a_run_in_one_line_and_its_workers_too(tmp_path: Path) -> None:
    started = tmp_path / "started"
    slow = f"    import os, time; open({str(started)!r}, 'w').write(str(os.getpid())); time.sleep(300)\n    n = len("
    root = quiet_dagster(make_project(tmp_path / "p", ONE, steps=STEPS.replace("    n = len(", slow)).root)
    process = subprocess.Popen(
        command("-C", root, "run"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    until(lambda: started.exists() and started.read_text() != "")
    worker = int(started.read_text())
    for _ in range(2):  # the first one lets it finish
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group hears it
        time.sleep(1)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert [line for line in err.splitlines() if not line.startswith("registry")] == [
        "counted: withdrawing queued jobs; running ones may finish, and are kept (again: cancel them)",
        "counted: cancelling all jobs (again: leave at once)",
        "ct: interrupted; what was made is kept, and `ct run` goes on from there",
    ]
    until(lambda: not Path(f"/proc/{worker}").exists())
    until(lambda: half_made(root) == [])
    assert contents(root)["lease"] == []
    (root / "steps" / "toy.py").write_text(STEPS)
    again = shell("-C", root, "run", "counted")
    assert again.code == 0 and "1 made" in again.err


@pytest.mark.parametrize("waits", [True, False])
def test_a_run_with_a_killed_front_ends_and_keeps_its_work(tmp_path: Path, waits: bool) -> None:
    """Not `waits`: the next run begins while a worker is still at the call, and waits for that itself."""
    started = tmp_path / "started"
    slow = (
        f"    import os, time; open({str(started)!r}, 'a').write(f'{{os.getppid()}}\\n'); time.sleep(4)\n    n = len("
    )
    toml = TOML.replace("workers = 2", "workers = 1")
    root = quiet_dagster(make_project(tmp_path / "p", steps=STEPS.replace("    n = len(", slow), toml=toml).root)
    front = subprocess.Popen(command("-C", root, "run", "counted"), stderr=subprocess.DEVNULL, env=environment())
    until(lambda: started.exists() and started.read_text() != "")
    (runner,) = map(int, Path(f"/proc/{front.pid}/task/{front.pid}/children").read_text().split())
    front.kill()
    until(lambda: not is_running(runner))
    if waits:
        until(lambda: half_made(root) == [])
        assert len(started.read_text().split()) == 1
    said = shell("-C", root, "run", "counted")
    assert said.code == 0 and "2 made, 1 reused" in said.err
    assert len(started.read_text().split()) == 3


@pytest.mark.parametrize("lives", [True, False])
def test_a_runner_whose_front_is_gone_already_begins_nothing(lives: bool) -> None:
    """Killed before the runner could ask the kernel to be told of it."""
    begin = "from ctcore.projects.dagster_home import end_with_front; end_with_front(); print('begun')"
    front = {"CT_FRONT": str(os.getpid() if lives else os.getppid())}
    ended = subprocess.run([sys.executable, "-c", begin], env=environment(**front), capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == ((0, b"begun\n") if lives else (-signal.SIGTERM, b""))


def is_running(process: int) -> bool:
    """A zombie is none: who collects it is not ours to say."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


CHAIN = (
    STEPS
    + """

@step(level="assay", inputs={"n": "counted"}, outputs={"n": "n.txt"})
def doubled(call: Call) -> None:
    call.out("n").write_text(call.one("n")["n"].read_text() * 2)


@step(level="assay", inputs={"n": "doubled"}, outputs={"n": "n.txt"})
def tripled(call: Call) -> None:
    call.out("n").write_text(call.one("n")["n"].read_text() * 3)
"""
)


def test_steps_of_one_partition_are_one_run_each_decided_late(tmp_path: Path) -> None:
    root = quiet_dagster(make_project(tmp_path / "p", ONE, steps=CHAIN).root)

    def runs() -> int:
        with closing(sqlite3.connect(root / "dagster_home/history/runs.db")) as connection:
            return connection.execute("SELECT count(*) FROM runs").fetchone()[0]

    said = shell("-C", root, "run", "tripled")
    assert said.code == 0 and "3 made, 0 reused, 0 not made" in said.err and runs() == 1
    place = root / "steps" / "toy.py"
    place.write_text(CHAIN.replace("strip()) *", "strip()) * 1 *").replace("* 3", "* 4"))
    said = shell("-C", root, "run", "tripled")  # the first has the same bytes, so that the second is fresh
    assert said.code == 0 and "2 made, 0 reused, 0 not made" in said.err and "doubled" not in said.err
    place.write_text(CHAIN.replace(".read_text() * 2)", ".read_text() / 2)"))
    said = shell("-C", root, "run", "tripled")
    assert said.code == 1 and said.err.count("doubled/A1 failed: TypeError") == 2, "said once, and in the end"
    assert "0 made, 1 reused, 2 not made" in said.err and "tripled/A1 blocked: " in said.err


def test_a_read_only_store_is_one_message_before_anything_runs(tmp_path: Path) -> None:
    root = quiet_dagster(make_project(tmp_path / "p").root)
    store = root / "store"
    with mounted(store, "--bind", "-o", "ro", str(store)):
        said = shell("-C", root, "run")
    assert said.code == 1
    way = "the file system is read-only: have it mounted for writing, or move the project"
    assert said.err == f"ct: cannot write in {store}: {way}\n"
    assert contents(root)["attempt"] == []


def test_a_disk_that_fills_fails_only_what_does_not_fit(tmp_path: Path) -> None:
    large = STEPS.replace(
        "    n = len(", '    call.scratch("large").write_bytes(b"x" * (50 << 20) * (call.entity == "A2"))\n    n = len('
    )
    one_by_one = TOML.replace("workers = 2", "workers = 1")  # else a neighbour may meet the full disk as well
    root = quiet_dagster(make_project(tmp_path / "p", steps=large, toml=one_by_one).root)
    with mounted(root / "store", "-t", "tmpfs", "-o", "size=8m", "tmpfs"):
        said = shell("-C", root, "run", "counted")
        assert said.code == 1 and "2 made, 0 reused, 1 not made" in said.err
        failed = [line for line in said.err.splitlines() if line.startswith("counted/A2 failed: ")]
        assert len(failed) == 1
        assert str(root / "store") in failed[0] and "the disk is full: free space there" in failed[0]
        assert half_made(root) == []
        (root / "steps" / "toy.py").write_text(STEPS)
        assert shell("-C", root, "run", "counted").code == 0
        assert {"counted/A1", "counted/A2", "counted/A3"}.isdisjoint(reasons(Project(root)))


def test_a_store_that_vanishes_in_a_run_is_named_with_the_way(tmp_path: Path) -> None:
    """A2 is at work, and A3 has not begun."""
    root, disk = tmp_path / "p", tmp_path / "disk"
    vanish = f"    import os\n    call.entity == 'A2' and os.rename({str(disk)!r}, '{disk}.away')\n    n = len("
    one_by_one = TOML.replace("workers = 2", "workers = 1")
    make_project(root, steps=STEPS.replace("    n = len(", vanish, 1), toml=one_by_one)
    (root / "store").rename(disk)
    (root / "store").symlink_to(disk)
    said = shell("-C", quiet_dagster(root), "run", "counted/A2", "counted/A3")
    assert said.code == 1 and "0 made, 0 reused, 2 not made" in said.err, said.err
    told = [line for line in said.err.splitlines() if line.startswith("counted/A")]
    way = f"({root / 'store'}, which leads to {disk}); its disk went away: have it mounted again"
    assert len(told) == 2 and all(line.endswith(way) for line in told), told
    Path(f"{disk}.away").rename(disk)
    (root / "steps" / "toy.py").write_text(STEPS)
    assert shell("-C", root, "run").code == 0 and shell("-C", root, "status").code == 0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A project's Dagster home, on a disk of its own with 16 MB."""
    place = tmp_path / "p" / "dagster_home"
    place.mkdir(parents=True)
    with mounted(place, "-t", "tmpfs", "-o", "size=16m", "tmpfs"):
        yield place


NO_ROOM = "is there room on the disk, and may its folder be written?"


@pytest.mark.parametrize("began", [False, True])
def test_a_full_disk_of_dagsters_home_is_one_line(tmp_path: Path, home: Path, began: bool) -> None:
    root = quiet_dagster(make_project(tmp_path / "p", ONE).root)
    if began:
        assert shell("-C", root, "register", write_sheet(root, ROWS)).code == 0
    filler = fill(home)
    said = shell("-C", root, "run")
    assert said.code == 1 and said.err.count("\n") == 1, said.err
    assert said.err.startswith(f"ct: Dagster's storage ({home}): ") and said.err.endswith(f"{NO_ROOM}\n")
    filler.unlink()
    assert shell("-C", root, "run").code == 0 and shell("-C", root, "status").code == 0


def test_a_disk_of_dagsters_home_that_fills_is_one_line(tmp_path: Path, home: Path) -> None:
    """What was made is kept, though Dagster cannot be told of it: the next run tells it. Others are still at work."""
    filling = f"""    import time
    if call.entity != "A1":
        time.sleep(3)
    else:
        with open({str(home / "filler")!r}, "ab", buffering=0) as filler:
            try:
                while filler.write(bytes(4096)):
                    pass
            except OSError:
                pass
    n = len("""
    root = quiet_dagster(make_project(tmp_path / "p", steps=STEPS.replace("    n = len(", filling, 1)).root)
    said = shell("-C", root, "run", "counted")
    assert said.code == 1
    lines = [line for line in said.err.splitlines() if not line.startswith(("registry", "counted"))]
    assert len(lines) == 1 and lines[0].startswith(f"ct: Dagster's storage ({home}): "), said.err
    assert lines[0].endswith(NO_ROOM)
    (root / "steps" / "toy.py").write_text(STEPS)
    (home / "filler").unlink()
    assert shell("-C", root, "run").code == 0 and shell("-C", root, "status").code == 0


def test_without_the_cache_what_is_stale_runs_and_is_compared(tmp_path: Path) -> None:
    root = quiet_dagster(make_project(tmp_path / "p", ONE, steps=CHANCE).root)
    place = root / "steps" / "toy.py"
    first = place.read_text()
    other = first.replace("{n} ", "{n}: ")
    for text in (first, other, first):
        place.write_text(text)
        said = shell("-C", root, "run", "counted", *(["--no-cache"] if text == first else []))
        assert said.code == 0 and "0 not made" in said.err
    assert "counted/A1: made again, the same bytes" in said.err
    place.write_text(other)
    (root / "reads" / "chance").write_text("heads")
    said = shell("-C", root, "run", "--no-cache", "counted")
    assert said.code == 3 and "counted/A1: made again, other bytes in n.txt; what is there was kept" in said.err
    again = shell("-C", root, "run", "counted")
    assert again.err == "everything is fresh: nothing to do\n"


def test_an_error_of_the_whole_run_names_no_single_node(tmp_path: Path) -> None:
    """The catalog is damaged meanwhile: what ct says of that, not what its driver says, and not as if A1 had failed."""
    drop = "    import sqlite3; sqlite3.connect({!r}).execute('DROP TABLE lease')\n    n = len("
    steps = STEPS.replace("    n = len(", drop.format(str(tmp_path / "p" / "catalog.db")), 1)
    toml = TOML.replace("workers = 2", "workers = 1")
    root = quiet_dagster(make_project(tmp_path / "p", ROWS, steps=steps, toml=toml).root)
    said = shell("-C", root, "run", "counted")
    assert said.code != 0
    (line,) = (line for line in said.err.splitlines() if " failed: " in line)
    assert line.startswith("  counted/A1...A3 failed: "), said.err
    assert "no such table: lease" in line and "`ct recover`" in line
