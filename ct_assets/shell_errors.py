"""What a person typed wrong after `dagster` is one line: Dagster prints a traceback of its own for it."""

import os
import sys
from functools import partial
from pathlib import Path
from types import TracebackType

import dagster as dg
from dagster_shared.check import CheckError

from ctcore.project import Project


def say_errors_in_one_line(project: Project) -> None:
    """In a `dagster` command that loads the definitions itself (`dagster asset materialize -f definitions.py`), errors
    of Dagster's own are said without their traceback. Nothing is done in any other process."""
    command = Path(sys.argv[0])
    if "dagster" in (command.name, command.parent.name) and sys.excepthook is sys.__excepthook__:
        sys.excepthook = partial(_said, project.dagster_home)


def _said(home: Path, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As Python does; of what Dagster refuses, the message alone."""
    if not isinstance(error, dg.DagsterError | CheckError):
        sys.__excepthook__(kind, error, trace)
        return
    print(f"Error: {' '.join(str(error).split())}", file=sys.stderr)
    if "DAGSTER_HOME" not in os.environ:
        # Dagster takes an instance of its own then, in which nothing is registered.
        print(f"DAGSTER_HOME is not set, so Dagster knows no partition: export DAGSTER_HOME={home}", file=sys.stderr)
