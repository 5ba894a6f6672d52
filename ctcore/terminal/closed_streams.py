"""Standard streams that whoever started `ct` has closed (`ct run 2>&-`): they lead nowhere."""

import os
import sys


def open_closed_streams() -> None:
    """Open what is closed of stdin, stdout and stderr on /dev/null, before another file takes its number.

    A program that is started with a closed stderr, and writes to it, writes into that file, or fails.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number (open(2))
            os.set_inheritable(number, True)
    # Python has None where one was closed when it began (sys.stdin of its manual).
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
