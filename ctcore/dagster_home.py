"""How the shell reaches Dagster: a process of its own, with DAGSTER_HOME of the project."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ctcore.errors import ProjectError
from ctcore.project import Project

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def environment(project: Project) -> dict[str, str]:
    """The environment of every process that belongs to this project."""
    home = project.root / "dagster_home"
    home.mkdir(exist_ok=True)
    return {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "CT_PROJECT": str(project.root),
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }


def launch(project: Project, *arguments: str) -> int:
    """Run `ct_assets.launch` of the project and wait for it. Returns its exit code.

    It has a session of its own, so that Ctrl-C in the terminal does not hit Dagster's helpers, which would each
    print a traceback: it is passed on to the one process that ends the run in order.
    """
    if not (project.root / "ct_assets").is_dir() and importlib.util.find_spec("ct_assets") is None:
        raise ProjectError(f"{project.root} has no ct_assets; `ct init {project.root}` writes it")
    command = [sys.executable, "-m", "ct_assets.launch", *arguments]
    with _passed_on() as started:
        child = subprocess.Popen(command, cwd=project.root, env=environment(project), start_new_session=True)
        started.append(child)
        code = child.wait()
    return code if code >= 0 else 128 - code


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
