"""④ In the sandbox: load the step's file and run its function for one call, whose folder the worker has staged.

`main([STAGED, PLACE, PROJECT])`; the call lies in the folder above PLACE, and so will its outcome.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from ctcore.alone import looked_for
from ctcore.errors import CtError
from ctcore.execute import StepCall, perform, print_traceback, step_of, watcher, words_of
from ctcore.sandbox import CALL, OUTCOME
from ctcore.store import Store
from ctcore.whole import write_json


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
        return {"error": words_of(error, Store(project / "store").root), "looked_for": list(looked_for(error))}
