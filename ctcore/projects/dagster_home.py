"""The shell's way to Dagster: a separate process with the DAGSTER_HOME of the project, or of several."""

import importlib.util
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from ctcore.config.settings import FILE_NAME
from ctcore.errors import ProjectError, Usage
from ctcore.project import Project
from ctcore.projects.code_files import refresh_settings
from ctcore.projects.dagster_copy import refuse_other_copies
from ctcore.projects.forked_launcher import MODULE, ForkedLauncher, fork_launcher, may_fork
from ctcore.util.disk_errors import open_files_limit
from ctcore.util.processes import end_with_parent

SETTINGS = "dagster.yaml"
OPEN_FILES = 64
"""A run of a small project has 36 at once, most of them databases of Dagster's."""
_FRONT = "CT_FRONT"
# Imports make no garbage: to look for it takes 0.3 s, a fifth of what they take. The launcher looks for it again.
_BEGIN = f"import gc, runpy; gc.disable(); runpy.run_module({MODULE!r}, run_name='__main__', alter_sys=True)"
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def environment(project: Project, command: str | None = None) -> dict[str, str]:
    """The environment of every process that belongs to this project; of one that runs this command of the launcher."""
    refuse_other_copies(project, command)
    if command in (None, "run") and (limit := open_files_limit()) < OPEN_FILES:
        said = f"a run needs {OPEN_FILES} open files, and {limit} are allowed here"
        raise ProjectError(f"{said}; `ulimit -n {OPEN_FILES}`, then run it again")
    home = project.dagster_home
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not project.is_shared:
            refresh_settings(project.root)
        elif not (home / SETTINGS).exists():
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
            # A link, not a rename: of two projects that begin at once, the first one's settings stay.
            os.link(part, home / SETTINGS)
        part.unlink()


def dagster_schema(catalog_schema: str) -> str:
    """Dagster's schema beside a catalog's: as long, so that it is not cut, and no other project's."""
    return "dg_" + catalog_schema.removeprefix("ct_")


def schema_of(project: Project) -> str:
    """Dagster's schema on PostgreSQL. Projects that share an instance name it in their settings."""
    with suppress(OSError):
        text = (project.dagster_home / SETTINGS).read_text(encoding="utf-8")
        if named := re.search(r"^\s+schema:\s*(\w+)\s*$", text, re.MULTILINE):
            return named[1]
    return dagster_schema(project.catalog.schema)


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
    with _forwarded_signals() as (started, handled):
        variables = {**environment(project, arguments[0]), _FRONT: str(os.getpid())}
        with (
            _deferred_interrupt()
        ):  # the child inherits it, until it can say what was interrupted (`unblock_interrupt`)
            child = _begun(project.root, arguments, variables, handled)
            started.append(child)
        code = child.wait()
    # As shells say it: 130 after Ctrl-C, 143 after SIGTERM.
    return code if code >= 0 else 128 - code


def _begun(
    root: Path, arguments: Sequence[str], variables: Mapping[str, str], handled: Sequence[int]
) -> ForkedLauncher | subprocess.Popen[bytes]:
    if may_fork(root):
        return fork_launcher(root, arguments, variables, handled)
    # A file that Dagster loads by path is looked for from the current directory; so are `ct_assets` and `definitions`.
    command = [sys.executable, "-c", _BEGIN, *arguments]
    return subprocess.Popen(command, cwd=root, env=variables, start_new_session=True)


@contextmanager
def _deferred_interrupt() -> Iterator[None]:
    """Delay Ctrl-C: importing Dagster takes seconds, and would end in a traceback."""
    # A blocked signal is kept until it is unblocked, and the mask is inherited over exec (sigprocmask(2)).
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        unblock_interrupt()


def unblock_interrupt() -> None:
    """Accept Ctrl-C again, including one that came during the delay."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def end_with_front() -> None:
    """In a process of `launch`: end with SIGTERM when its `ct` is killed, as after a restart. Slurm jobs stay,
    workers finish their call, and the next run continues."""
    front = os.environ.pop(_FRONT, None)
    if front is None:
        return
    end_with_parent(signal.SIGTERM)
    if os.getppid() != int(front):  # it was killed a moment ago
        signal.raise_signal(signal.SIGTERM)


@contextmanager
def _forwarded_signals() -> Iterator[tuple[list[ForkedLauncher | subprocess.Popen[bytes]], list[signal.Signals]]]:
    """Signals that would end this process reach the started one instead: as Ctrl-C, or as SIGTERM. Which these are."""
    started: list[ForkedLauncher | subprocess.Popen[bytes]] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if not started:
            raise KeyboardInterrupt
        started[0].send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in _ENDING}
    # Under nohup, SIGHUP is ignored on purpose, and has to stay so.
    heard = [number for number in _ENDING if before[number] is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, pass_on)
    try:
        yield started, heard
    finally:
        for number in heard:
            signal.signal(number, before[number])
