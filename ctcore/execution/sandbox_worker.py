"""In the sandbox: load the step's file and run its function for one call, whose folder the worker has staged.

`main([STAGED, PLACE, PROJECT])`; the call lies in the folder above PLACE, and so will its outcome.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from ctcore.errors import CtError
from ctcore.execution.call import StepCall, error_text, perform, print_traceback, step_of, watcher
from ctcore.execution.private_folder import missing_file_names
from ctcore.execution.sandbox import CALL, OUTCOME
from ctcore.store.store import Store
from ctcore.util.atomic_file import write_json


def main(arguments: list[str]) -> None:
    staged, place, project = map(Path, arguments)
    sys.dont_write_bytecode = True
    tempfile.tempdir = None
    call = StepCall(**json.loads((place.parent / CALL).read_bytes()))
    write_json(place.parent / OUTCOME, _outcome(call, staged, place, project))


def _outcome(call: StepCall, staged: Path, place: Path, project: Path) -> dict[str, Any]:
    seen = watcher(call)
    try:
        with seen:
            step, code = step_of(call)
        return {"error": None, **perform(call, step, code, staged, place, project, seen)}
    except (Exception, SystemExit) as error:  # an edge, as in the worker
        if not isinstance(error, CtError):
            print_traceback(error)
        return {
            "error": error_text(error, Store(project / "store").root, project=project),
            "looked_for": list(missing_file_names(error)),
        }
