"""One process forks the workers of a run, has imported nothing heavy, and may be killed at any time."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.tables import attempt, lease
from ctcore.execution.fork_server import KEPT, Worker, WorkerRequest
from ctcore.execution.local import LocalRunner, _Job, _Shift
from ctcore.util import progress
from ctcore.util.processes import started_at
from tests.execution.test_stopping import start
from tests.helpers.cluster_runs import Cohort
from tests.helpers.kit import STEPS, again, make, make_project
from tests.helpers.shell import ROOT
from tools.slurm.processes import wait

PATIENCE_S = 30
SAYING = STEPS.replace(
    "    n = len(", '    import os; print(os.environ.get("GIVEN"), os.environ.get("LC_GIVEN"))\n    n = len(', 1
)


def server_of(pid: int) -> int:
    """The process below `pid` that forks its workers."""
    for stat in Path(f"/proc/{pid}/task/{pid}").glob("children"):
        for child in stat.read_text().split():
            if b"ctcore.execution.fork_server" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    raise AssertionError(f"{pid} has none")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert wait(lambda: started_at(pid) is None, PATIENCE_S)


def test_the_server_imports_what_a_compute_node_does() -> None:
    code = (
        "import sys; before = set(sys.modules); import ctcore.execution.fork_server; "
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.strip() == "['blake3', 'ctcore']", done.stderr


def test_all_runs_of_a_process_have_one_server(tmp_path: Path) -> None:
    toy = Cohort(tmp_path / "toy", 2)
    assert {one.state for one in make(toy.project, "counted", "A000")} == {"made"}
    first = server_of(os.getpid())
    assert {one.state for one in make(again(toy.project), "counted", "A001")} == {"made"}
    assert server_of(os.getpid()) == first


def test_a_killed_server_is_replaced_by_the_next_run(tmp_path: Path) -> None:
    toy = Cohort(tmp_path / "toy", 2)
    make(toy.project, "counted", "A000")
    before = server_of(os.getpid())
    kill(before)
    assert {one.state for one in make(again(toy.project), "counted", "A001")} == {"made"}
    assert server_of(os.getpid()) != before


def test_a_server_killed_in_a_run_costs_no_call(tmp_path: Path) -> None:
    """Its workers go on, their ends are seen, and what waits is begun by another."""
    toy = Cohort(tmp_path / "toy", 6)
    for name in toy.names:
        toy.tell(name, "wait")
    run = start(toy)
    assert wait(lambda: sum(toy.begun().values()) == 2, PATIENCE_S)
    kill(server_of(run.pid))
    toy.go()
    out, said = run.communicate(timeout=PATIENCE_S)
    assert sorted(out.split()) == sorted([*toy.names, *["made"] * 6]), said
    assert set(toy.begun().values()) == {1}
    toy.settled()


@contextmanager
def no_server_lives(pid: int) -> Iterator[None]:
    """Kill each server of this process as soon as it is there."""
    is_over = threading.Event()

    def strike() -> None:
        while not is_over.wait(0.005):
            with suppress(AssertionError, OSError):
                os.kill(server_of(pid), signal.SIGKILL)

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_where_each_server_is_killed_each_call_says_so(tmp_path: Path) -> None:
    toy = Cohort(tmp_path / "toy", 3)
    notes: list[str] = []
    with no_server_lives(os.getpid()), progress.reading(notes.append):
        outcomes = {one.node[1]: one for one in make(toy.project, "counted")}
    assert {name: one.state for name, one in outcomes.items()} == dict.fromkeys(toy.names, "failed")
    said = {one.why for one in outcomes.values()}
    assert said == {"no worker could be started: the process that starts workers was killed twice; run it again"}
    assert notes == [] and list((toy.project.work / "calls").iterdir()) == []
    with again(toy.project).catalog.read() as connection:
        assert connection.execute(select(lease)).all() == []
    assert {one.state for one in make(again(toy.project), "counted")} == {"made"}


def test_a_worker_that_cannot_begin_is_not_called_killed(tmp_path: Path) -> None:
    worker = KEPT.start(WorkerRequest(str(tmp_path), str(tmp_path), [], str(tmp_path / "gone" / "its.log")))
    assert wait(lambda: not KEPT.is_running(worker) and worker.is_gone, PATIENCE_S)
    assert worker.ended == "its worker ended with exit code 1"


def test_how_a_call_of_a_killed_worker_ended_is_unknown(tmp_path: Path) -> None:
    toy = Cohort(tmp_path / "toy", 1)
    toy.tell("A000", "wait")
    run = start(toy)
    assert wait(lambda: sum(toy.begun().values()) == 1, PATIENCE_S)
    (worker,) = map(int, Path(f"/proc/{server_of(run.pid)}/task/{server_of(run.pid)}/children").read_text().split())
    kill(worker)
    out, _ = run.communicate(timeout=PATIENCE_S)
    assert out.split() == ["A000", "failed"]
    with again(toy.project).catalog.read() as connection:
        error = connection.execute(select(attempt.c.error)).scalar_one()
    assert error == "the call ended its process without a result (its worker was killed); see its log"


def test_the_server_ends_with_its_run(tmp_path: Path) -> None:
    toy = Cohort(tmp_path / "toy", 1)
    toy.tell("A000", "wait")
    run = start(toy)
    assert wait(lambda: sum(toy.begun().values()) == 1, PATIENCE_S)
    server = server_of(run.pid)
    run.kill()
    run.communicate()
    assert wait(lambda: started_at(server) is None, PATIENCE_S)
    toy.go()
    assert {one.state for one in make(again(toy.project), "counted")} <= {"hit", "made"}
    assert toy.begun() == {"A000": 1}, "its worker went on"


def test_a_worker_has_the_variables_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that Python reads only when it starts: then another server is started."""
    project = make_project(tmp_path / "toy", steps=SAYING)
    servers, logs = [], []
    for who, name, given in (("A1", "GIVEN", "one"), ("A2", "GIVEN", "two"), ("A3", "LC_GIVEN", "three")):
        monkeypatch.setenv(name, given)
        (one,) = make(again(project), "counted", who)
        servers.append(server_of(os.getpid()))
        logs.append(Path(one.log or "").read_text().split())
    assert logs == [["one", "None"], ["two", "None"], ["two", "three"]]
    assert servers[0] == servers[1] != servers[2]


def test_a_look_waits_for_more_where_workers_have_much_to_do(tmp_path: Path) -> None:
    """And not where one would wait for the next look, as with a chain of single calls."""
    shift = _Shift(LocalRunner(make_project(tmp_path / "toy"), workers=2), [])
    worker, log = Worker(1, None), tmp_path / "log"
    found = []
    for many in (64, 60, 2):
        shift.running.append(_Job(worker, log, [None] * many))  # type: ignore[list-item]
        found.append(shift.rest_s)
    assert found == [0, 0.25, 0.01], "a place is free; both have much to do; one has little"
