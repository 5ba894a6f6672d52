"""The call of a step's function, when the function forks: a child that goes on as if it were the call ends here.

Both would check and publish the same folder, and write the same result.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ctcore.errors import StepError
from ctcore.step import Call
from ctcore.util.processes import children_of

_NOTE = ".forked"
_WAIT_S = 0.5
"""So long a child may take longer than its parent, and still be found to go on."""
_POLL_S = 0.01
_forks = Counter[str]()
os.register_at_fork(
    after_in_parent=lambda: _forks.update(["of this process"])
)  # `subprocess` does not come by here (Modules/_posixsubprocess.c)


def call_function(function: Callable[[Call], Any], given: Call, notes: Path) -> Mapping[str, Any]:
    """What the function returns. StepError if it forked, and the child returned too. `notes`: the call's own folder."""
    me, before, note = os.getpid(), _forks.total(), notes / _NOTE
    returned = function(given)
    if os.getpid() != me:
        with suppress(OSError):
            note.touch()
        # Not sys.exit: the callers' `finally` blocks would run in the child too, and remove the call's staged folder.
        os._exit(1)
    until = time.monotonic() + _WAIT_S
    while _forks.total() > before and not note.exists() and _copies(me) and time.monotonic() < until:
        time.sleep(_POLL_S)
    if note.exists():
        raise StepError(
            "the step forked and went on in both processes: end the child with os._exit, or use subprocess or"
            " multiprocessing"
        )
    return returned or {}


def _copies(pid: int) -> list[int]:
    """Living children that are forks of this process and run no program of their own."""
    mine = _command(pid)
    return [child for child in children_of(pid) if _command(child) == mine]


def _command(pid: int) -> bytes | None:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
