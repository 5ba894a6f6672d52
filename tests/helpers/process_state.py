"""What a process has from whoever started it, written down by itself."""

import atexit
import gc
import json
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path


def write_state(place: str) -> None:
    """As JSON; and, at the end of the process, that functions for its end were called."""
    mask = os.umask(0)
    os.umask(mask)
    state = {
        "folder": os.getcwd(),
        "arguments": sys.argv,
        "path": sys.path,
        "variables": dict(os.environ),
        "signals": {one.name: str(signal.getsignal(one)) for one in signal.Signals},
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "session": (os.getsid(0), os.getpgid(0)),
        "mask": mask,
        "start method": multiprocessing.get_start_method(),
        "collects": (gc.isenabled(), gc.get_threshold()),
        "threads": (threading.active_count(), len(os.listdir("/proc/self/task"))),
        "name": multiprocessing.current_process().name.rpartition("-")[0],
        "streams": [os.readlink(f"/proc/self/fd/{one}") for one in range(3)],
    }
    Path(place).write_text(json.dumps(state))
    atexit.register(Path(place + ".end").touch)
