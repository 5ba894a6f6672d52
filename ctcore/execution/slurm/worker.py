"""On a compute node: run the calls of one task of an array. No catalog, no Dagster, no submitit.

`python -m ctcore.execution.slurm.worker WORK STORE CALLFILE…`
"""

import json
import os
import signal
import sys
from pathlib import Path

from ctcore.execution.call import StepCall, run_calls
from ctcore.execution.private_folder import sweep_temporary
from ctcore.store.store import Store


def main(arguments: list[str]) -> None:
    """SIGTERM (time limit, preemption, scancel) ends the step like Ctrl-C: its staged folder is removed.

    The exit code is for people who look at sacct: the record decides.
    """
    # Slurm sends SIGTERM, and SIGKILL after KillWait (30 s unless set): time to remove the staged folder.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sweep_temporary()
    work, store, *calls = arguments
    failed = 0
    for path in calls:
        # A withdrawn batch has no calls any more. Slurm may have taken it all the same, or start it late.
        if not os.path.exists(path):
            print("nobody waits for this call any more: nothing is run", flush=True)
            failed += 1
        elif _is_made(StepCall(**json.loads(Path(path).read_bytes())), store):
            print("made already, when this job was started before: nothing is run again", flush=True)
        else:
            failed += run_calls(work, store, [path])
    if failed:
        sys.exit(1)


def _is_made(call: StepCall, store: str) -> bool:
    """Slurm starts a job again whose node it lost, or whose end a controller had not written down when it died."""
    kept = Store(Path(call.store or store))
    one = kept.find(*call.node, call.key)
    # deep: the node may have died while the files were written, so that size and time prove nothing.
    return one is not None and not kept.check(one.folder, one.manifest, deep=True)


if __name__ == "__main__":
    main(sys.argv[1:])
