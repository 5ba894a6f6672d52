"""Runs that Dagster's code server starts are forks of one process, and what new Pythons would be."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from ct_instance import forked_runs, run_imports
from ct_instance.forked_runs import CONTEXT, ForkedRun, fork_runs
from ct_instance.run_server import RunServer
from ctcore.project import Project
from ctcore.projects.dagster_home import environment
from ctcore.store.digest import Signature
from ctcore.util.processes import started_at
from tests.helpers.kit import ROWS, STEPS, TOML, write_sheet
from tests.helpers.process_state import write_state
from tests.helpers.shell import ROOT, shell
from tests.helpers.world import PATIENCE_S

LIBRARY = """
import os, sys
sys.library = "{version}"
with open(os.path.join({folder!r}, "starts"), "a") as stream:
    stream.write(" ".join(sys.orig_argv) + "\\n")
"""
OWN = '''

import json, os, sys, time
from project_helper import SAID

@dg.asset
def own(context: dg.AssetExecutionContext) -> None:
    """Says what it is, and waits where it is told to."""
    said = {
        "pid": os.getpid(), "parent": os.getppid(), "library": sys.library, "helper": SAID,
    }
    here.joinpath("said.part").write_text(json.dumps(said))
    here.joinpath("said.part").rename(here / f"said.{context.run_id}")
    while "waits" in context.run.tags and not here.joinpath(context.run.tags["waits"]).exists():
        time.sleep(0.1)

defs = dg.Definitions.merge(defs, dg.Definitions(assets=[own]))
'''


class Served:
    """A project with its code server."""

    def __init__(self, root: Path, library: Path, context: WorkspaceProcessContext) -> None:
        self.root, self.library, self._context = root, library, context
        self.instance = context.instance

    def begin(self, asset: str = "own", **tags: str) -> str:
        """Start a run as the daemon does; its ID."""
        request = self._context.create_request_context()
        (location,) = (request.get_code_location(name) for name in request.code_location_names)
        (repository,) = location.get_repositories().values()
        origin = repository.get_full_job("__ASSET_JOB").get_remote_origin()
        run = self.instance.create_run_for_job(
            _job(self.root), asset_selection={dg.AssetKey(asset)}, tags=tags, remote_job_origin=origin
        )
        self.instance.launch_run(run.run_id, request)
        return run.run_id

    def status(self, run: str) -> str:
        found = self.instance.get_run_by_id(run)
        assert found is not None
        return found.status.value

    def ended(self, run: str) -> str:
        """Its status when it has ended."""
        until(lambda: self.status(run) in ("SUCCESS", "FAILURE", "CANCELED"))
        return self.status(run)

    def said(self, run: str) -> dict[str, Any]:
        """What the asset `own` of a run has said."""
        path = self.root / f"said.{run}"
        until(path.exists)
        return json.loads(path.read_text())

    def made(self) -> dict[str, Any]:
        run = self.begin()
        assert self.ended(run) == "SUCCESS"
        return self.said(run)

    def starts(self) -> list[str]:
        """The command lines of all Pythons that were started for it, without those that Dagster starts to show what a
        run prints."""
        lines = (self.root / "starts").read_text().splitlines()
        return [line for line in lines if "watch_orphans" not in line]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def settle(path: Path) -> None:
    """Wait until a later write of it would show."""
    until(lambda: Signature.of(path).settled(time.time_ns()))


def _job(root: Path) -> dg.JobDefinition:
    """The job as the code server has it, without importing the project here."""

    @dg.asset
    def own() -> None: ...

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition([row["assay_id"] for row in ROWS]))
    def counted() -> None: ...

    return dg.Definitions(assets=[own, counted]).resolve_implicit_global_asset_job_def()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("forked")
    root, library = folder / "cohort", folder / "lib" / "site-packages"
    assert shell("init", root).code == 0
    (root / "ct.toml").write_text(TOML)
    (root / "genome.txt").write_text("ACGT\n")
    (root / "steps/toy.py").write_text(STEPS)
    assert shell("-C", root, "register", write_sheet(root, ROWS)).code == 0
    (root / "project_helper.py").write_text("SAID = 'one'\n")
    with (root / "definitions.py").open("a") as stream:
        stream.write(OWN)
    library.mkdir(parents=True)
    (library / "sitecustomize.py").write_text(LIBRARY.format(version=1, folder=str(root)))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(Project.find(root)).items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", f"{library}{os.pathsep}{ROOT}")
        patch.chdir(root)
        target = WorkspaceFileTarget([str(root / "workspace.yaml")])
        with dg.DagsterInstance.get() as instance, WorkspaceProcessContext(instance, target) as context:
            settle(library / "sitecustomize.py")
            yield Served(root, library, context)


@pytest.mark.daemon
@pytest.mark.xdist_group("daemon")
def test_runs_are_forks_and_start_no_python(served: Served) -> None:
    first = served.made()
    starts = served.starts()
    second = served.made()
    assert served.starts() == starts
    assert first["pid"] != second["pid"] and first["parent"] == second["parent"]


@pytest.mark.daemon
@pytest.mark.xdist_group("daemon")
def test_a_run_reads_the_projects_files_anew(served: Served) -> None:
    assert served.made()["helper"] == "one"
    (served.root / "project_helper.py").write_text("SAID = 'two'\n")
    assert served.made()["helper"] == "two"
    assert served.ended(served.begin("counted", **{"dagster/partition": "A1"})) == "SUCCESS"
    step = served.root / "steps/toy.py"
    step.write_text(step.read_text().replace("call.params.factor", "7"))
    assert served.ended(served.begin("counted", **{"dagster/partition": "A1"})) == "SUCCESS"
    place = Path(shell("-C", served.root, "path", "counted/A1").out.strip())
    assert int((place / "n.txt").read_text().split()[0]) % 7 == 0


@pytest.mark.daemon
@pytest.mark.xdist_group("daemon")
def test_a_run_sees_an_upgraded_library(served: Served) -> None:
    before = served.made()
    path = served.library / "sitecustomize.py"
    path.write_text(path.read_text().replace('"1"', '"2"'))
    after = served.made()
    assert (before["library"], after["library"]) == ("1", "2")
    settle(path)
    assert served.made()["parent"] == served.made()["parent"]


@pytest.mark.daemon
@pytest.mark.xdist_group("daemon")
def test_a_run_sees_that_something_was_installed(served: Served) -> None:
    before = served.made()
    (served.library / "new-1.dist-info").mkdir()
    assert served.made()["parent"] != before["parent"]


@pytest.fixture
def waiting(served: Served) -> Iterator[str]:
    """A run that waits until the file `go` is there."""
    run = served.begin(waits="go")
    served.said(run)
    try:
        yield run
    finally:
        (served.root / "go").touch()
        served.ended(run)
        (served.root / "go").unlink()


@pytest.mark.daemon
@pytest.mark.xdist_group("daemon")
def test_a_forked_run_is_terminated(served: Served, waiting: str) -> None:
    assert served.instance.run_launcher.terminate(waiting)
    assert served.ended(waiting) == "CANCELED"


@pytest.mark.daemon
@pytest.mark.xdist_group("daemon")
def test_a_killed_run_is_seen(served: Served, waiting: str) -> None:
    os.kill(served.said(waiting)["pid"], signal.SIGKILL)
    assert served.ended(waiting) == "FAILURE"
    said = [one.dagster_event.message or "" for one in served.instance.all_logs(waiting) if one.dagster_event]
    # The same words as of a run that Dagster started itself.
    assert any("was terminated by signal 9 (SIGKILL)." in one for one in said), said


@pytest.mark.daemon
@pytest.mark.xdist_group("daemon")
def test_a_run_outlives_a_killed_run_server(served: Served, waiting: str) -> None:
    os.kill(served.said(waiting)["parent"], signal.SIGKILL)
    other = served.made()  # by then the code server has looked after the first, too
    time.sleep(1)
    assert served.status(waiting) == "STARTED" and other["parent"] != served.said(waiting)["parent"]
    (served.root / "go").touch()
    assert served.ended(waiting) == "SUCCESS"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[forked_runs._Kept]:
    """A process that has forked no run yet."""
    made = forked_runs._Kept()
    monkeypatch.setattr(forked_runs, "KEPT", made)
    yield made
    if made.kept is not None:
        made.kept.let_go()
        until(made.kept.is_gone)


def run_to_end(target: Callable[..., object], *args: object) -> ForkedRun:
    process = ForkedRun(target=target, args=args)
    process.start()
    process.join()
    return process


def way(process: ForkedRun) -> str:
    return process._popen.method  # type: ignore[attr-defined]


def test_a_forked_run_has_what_a_new_python_has(kept: forked_runs._Kept, tmp_path: Path) -> None:
    states = {}
    for kind in (SpawnProcess, ForkedRun):
        place = tmp_path / kind.__name__
        process = kind(target=write_state, args=(str(place),), name="a-1")
        process.start()
        process.join()
        assert process.exitcode == 0 and place.with_suffix(".end").exists()
        states[kind] = json.loads(place.read_text())
    assert way(process) == "forkserver"  # type: ignore[arg-type]
    assert states[ForkedRun] == states[SpawnProcess]


def test_a_forked_run_ends_with_its_exit_code(kept: forked_runs._Kept) -> None:
    for number in (0, 7, 255):
        process = run_to_end(os._exit, number)
        assert (process.exitcode, way(process)) == (number, "forkserver")


def test_without_a_run_server_runs_are_spawned(kept: forked_runs._Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunServer, "has_imported", lambda *_: False)  # as with several threads, or on another system
    for _ in range(2):
        process = run_to_end(os._exit, 7)
        assert (process.exitcode, way(process)) == (7, "spawn")


def test_a_run_server_that_is_killed_at_work_costs_no_run(
    kept: forked_runs._Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> int:
        raise EOFError

    assert kept.current() is not None
    monkeypatch.setattr("multiprocessing.forkserver.read_signed", killed)  # where its answer is missing
    process = run_to_end(os._exit, 7)
    assert (process.exitcode, way(process)) == (7, "spawn")


def test_a_run_server_ends_with_its_code_server(tmp_path: Path) -> None:
    begin = "from ct_instance.forked_runs import KEPT; print(KEPT.current().pid, flush=True); input()"
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", begin], env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    number = int(process.stdout.readline())
    assert started_at(number) is not None
    process.kill()
    process.communicate()
    until(lambda: started_at(number) is None)


def test_a_run_server_has_one_thread_and_no_open_database(kept: forked_runs._Kept) -> None:
    server = kept.current()
    assert server is not None
    assert len(os.listdir(f"/proc/{server.pid}/task")) == 1
    opened = [os.readlink(one) for one in Path(f"/proc/{server.pid}/fd").iterdir()]
    assert [one for one in opened if ".db" in one] == []
    assert {"dagster._grpc.impl", "sqlalchemy", "ctcore.execution.materialize"} <= server.imported.keys()
    # Two forks would have one state of chances; and a project's own modules are read by each run.
    assert not {"numpy.random", "ct_assets", "sensors", "resources", "definitions"} & server.imported.keys()


def test_another_environment_is_another_run_server(
    kept: forked_runs._Kept, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    first = kept.current()
    assert kept.current() is first
    monkeypatch.setenv("CT_SOMETHING", "else")
    second = kept.current()
    assert second is not first and kept.current() is second
    (tmp_path / "other.py").touch()
    assert kept.current() is second
    (tmp_path / "sqlalchemy.py").touch()  # a project's file that a new Python would import instead
    assert second is not None and not second.is_current()


def test_where_dagster_is_another_it_starts_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code of Dagster's that starts runs in another way is left as it is."""

    class DagsterApiServer:
        def __init__(self) -> None:
            self.something_else = "spawn"

    module = ModuleType("server")
    module.DagsterApiServer = DagsterApiServer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, forked_runs._SERVER, module)
    fork_runs()
    assert not hasattr(DagsterApiServer, CONTEXT)


def test_what_runs_import_is_there(kept: forked_runs._Kept) -> None:
    """A name that is gone costs time in each run."""
    server = kept.current()
    assert server is not None and set(run_imports.MODULES) <= server.imported.keys()
