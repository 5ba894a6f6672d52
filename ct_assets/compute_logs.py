"""What calls printed, in the Dagster UI: their last lines in events, all of it in the stdout of their run."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

import dagster as dg
from dagster._core.storage.compute_log_manager import CapturedLogContext
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

from ct_assets.runs import SHELL_TAG
from ctcore.execution.materialize import Outcome
from ctcore.execution.slurm.tasks import tail
from ctcore.governance.masking import mask_of
from ctcore.model.node import name_of
from ctcore.project import Project
from ctcore.query.disclosure import why_log_withheld, why_withheld

MOST_BYTES = 256 * 1024  # of one call

_stdout: ContextVar[TextIO | None] = ContextVar("ct_stdout", default=None)


@contextmanager
def beside_terminal(instance: dg.DagsterInstance) -> Iterator[None]:
    """Inside of this block, what a run's calls print goes into its file only, and the terminal stays the process's own.

    Dagster leads stdout and stderr of the whole process into files, and starts four processes for each run that bring
    the terminal what is written there.
    """
    manager: Any = instance.compute_log_manager
    if not isinstance(manager, LocalComputeLogManager):  # people may keep their logs elsewhere
        yield
        return

    @contextmanager
    def capture_logs(log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        out, err, complete = (
            Path(manager.get_captured_local_path(log_key, kind)) for kind in ("out", "err", "complete")
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        err.touch()
        with out.open("a", encoding="utf-8") as file:
            token = _stdout.set(file)
            try:
                yield CapturedLogContext(log_key)
            finally:
                _stdout.reset(token)
        complete.touch()  # how Dagster knows that nothing more comes

    manager.capture_logs = capture_logs
    try:
        yield
    finally:
        # The attribute of this object hid the method of its class, which is back now.
        del manager.capture_logs


def listed(said: Iterable[str]) -> str:
    """A list in Markdown of what people and data say: no link, no picture and no element of theirs."""
    return "\n".join("- " + re.sub(r"[\\`*\[\]<>|!~&]", r"\\\g<0>", one) for one in said)


def fenced(log: str) -> str:
    """The last lines of a log, as they are."""
    said = tail(Path(log)).replace("```", "` ` `")
    return f"```\n{said}\n```" if said else "(nothing was printed)"


def failure_text(project: Project, outcome: Outcome) -> str:
    """One that could not be made: which, why, and what it said last."""
    text = f"{outcome.node[1]}: {outcome.state}: {outcome.why}"
    said = tail(Path(outcome.log)) if outcome.log and may_tell(project, outcome) else ""
    return f"{text}\nit said last:\n{said}" if said and said not in text else text


def may_tell(project: Project, outcome: Outcome) -> bool:
    """Whether what a call printed is for everybody: a consent may have ended while it ran."""
    if not mask_of(project) or outcome.log is None:
        return True
    if why_withheld(project, outcome.node) is not None:
        return False
    return why_log_withheld(project, outcome.node, Path(outcome.log)) is None


def print_log(project: Project, outcome: Outcome, run: dg.DagsterRun) -> None:
    """Into the run's own output, which Dagster keeps. A run of `ct run` writes on somebody's terminal: not there."""
    file = _stdout.get()
    if outcome.log is None or (SHELL_TAG in run.tags and file is None):
        return
    said = _end_of(Path(outcome.log))
    if said and may_tell(project, outcome):
        print(f"==> {name_of(outcome.node)}: {outcome.state} <==\n{said.rstrip()}\n", flush=True, file=file)


def _end_of(log: Path) -> str:
    try:
        with log.open("rb") as file:
            left_out = max(0, os.fstat(file.fileno()).st_size - MOST_BYTES)
            file.seek(left_out)
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return f"[{left_out} bytes are left out; all of it: {log}]\n{text}" if left_out else text
