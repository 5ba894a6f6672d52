"""③ What calls printed, in the Dagster UI: their last lines in events, all of it in the stdout of their run."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import dagster as dg

from ct_assets.runs import SHELL_TAG
from ctcore.disclosure import why_log_withheld, why_withheld
from ctcore.making import Outcome
from ctcore.project import Project
from ctcore.reasons import name_of
from ctcore.slurm.tasks import tail
from ctcore.veil import veil

MOST_BYTES = 256 * 1024  # of one call


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
    if not veil(project) or outcome.log is None:
        return True
    if why_withheld(project, outcome.node) is not None:
        return False
    return why_log_withheld(project, outcome.node, Path(outcome.log)) is None


def print_log(project: Project, outcome: Outcome, run: dg.DagsterRun) -> None:
    """Into the run's own output, which Dagster keeps. A run of `ct run` writes on somebody's terminal: not there."""
    if outcome.log is None or SHELL_TAG in run.tags or not may_tell(project, outcome):
        return
    said = _end_of(Path(outcome.log))
    if said:
        print(f"==> {name_of(outcome.node)}: {outcome.state} <==\n{said.rstrip()}\n", flush=True)


def _end_of(log: Path) -> str:
    try:
        with log.open("rb") as file:
            left_out = max(0, os.fstat(file.fileno()).st_size - MOST_BYTES)
            file.seek(left_out)
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return f"[{left_out} bytes are left out; all of it: {log}]\n{text}" if left_out else text
