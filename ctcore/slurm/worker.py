"""④ On a compute node: run the calls of one task of an array. No catalog, no Dagster, no submitit.

`python -m ctcore.slurm.worker WORK STORE CALLFILE…`
"""

import signal
import sys

from ctcore.alone import sweep_temporary
from ctcore.execute import run_calls


def main(arguments: list[str]) -> None:
    """SIGTERM (time limit, preemption, scancel) ends the step like Ctrl-C: its staged folder is removed.

    The exit code is for people who look at sacct: the record decides.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sweep_temporary()
    work, store, *calls = arguments
    if run_calls(work, store, calls):
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
