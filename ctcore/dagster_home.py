"""How the shell reaches Dagster: a process of its own, with DAGSTER_HOME of the project, or that of several."""

import ctypes
import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from ctcore.errors import ProjectError, Usage
from ctcore.project import Project
from ctcore.settings import FILE_NAME

SETTINGS = "dagster.yaml"
_FRONT = "CT_FRONT"
_PR_SET_PDEATHSIG = 1

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def environment(project: Project) -> dict[str, str]:
    """The environment of every process that belongs to this project."""
    home = project.dagster_home
    try:
        home.mkdir(parents=True, exist_ok=True)
        if project.is_shared and not (home / SETTINGS).exists():
            _begin(home, project.root / "dagster_home" / SETTINGS)
    except OSError as error:
        raise ProjectError(
            f"{home}: {error.strerror}; [dagster] home of {project.root / FILE_NAME} names it"
        ) from error
    return {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "CT_PROJECT": str(project.root),
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }


def _begin(home: Path, settings: Path) -> None:
    """Those of the first project; and, for PostgreSQL, a schema that is named once and stays when the folder moves."""
    if settings.is_file():
        own = f"class: CtStorage\n    config:\n      schema: dg_shared_{secrets.token_hex(6)}"
        part = home / f".{SETTINGS}.{os.getpid()}"
        part.write_text(settings.read_text(encoding="utf-8").replace("class: CtStorage", own), encoding="utf-8")
        with suppress(FileExistsError):  # another project was first
            os.link(part, home / SETTINGS)
        part.unlink()


def workspace(projects: Sequence[Project]) -> str:
    """Dagster's workspace.yaml of several projects: each a code location, named by its ID. All share one instance."""
    if len({project.dagster_home for project in projects}) > 1:
        said = "; ".join(f"{project.id} has {project.dagster_home}" for project in projects)
        raise Usage(
            f'these share no Dagster instance: {said}. Say the same [dagster] home = "…" in the {FILE_NAME} of each'
        )
    lines = ["load_from:"]
    for project in projects:
        lines += [
            "  - python_file:",
            f"      relative_path: {json.dumps(str(project.root / 'definitions.py'))}",
            f"      working_directory: {json.dumps(str(project.root))}",
            f"      location_name: {project.id}",
        ]
    return "\n".join(lines) + "\n"


def launch(project: Project, *arguments: str) -> int:
    """Run `ct_assets.launch` of the project and wait for it. Returns its exit code.

    It has a session of its own, so that Ctrl-C in the terminal does not hit Dagster's helpers, which would each
    print a traceback: it is passed on to the one process that ends the run in order.
    """
    if not (project.root / "ct_assets").is_dir() and importlib.util.find_spec("ct_assets") is None:
        raise ProjectError(f"{project.root} has no ct_assets; `ct init {project.root}` writes it")
    command = [sys.executable, "-m", "ct_assets.launch", *arguments]
    with _passed_on() as started:
        variables = {**environment(project), _FRONT: str(os.getpid())}
        child = subprocess.Popen(command, cwd=project.root, env=variables, start_new_session=True)
        started.append(child)
        code = child.wait()
    return code if code >= 0 else 128 - code


def end_with_front() -> None:
    """In what `launch` started: when the `ct` before it is killed, this process is told to end (SIGTERM), as by a
    restart: jobs in Slurm stay, workers finish the call that they are at, and the next run goes on."""
    front = os.environ.pop(_FRONT, None)
    if front is None:
        return
    with suppress(OSError, AttributeError):  # prctl(2): of Linux only
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != int(front):  # it was killed a moment ago
        signal.raise_signal(signal.SIGTERM)


@contextmanager
def _passed_on() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Signals that would end this process reach the started one instead: as Ctrl-C, or as SIGTERM."""
    started: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if not started:
            raise KeyboardInterrupt
        started[0].send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in _ENDING}
    heard = [number for number in _ENDING if before[number] is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, pass_on)
    try:
        yield started
    finally:
        for number in heard:
            signal.signal(number, before[number])
