"""What `ct` does where a shell has closed its streams: `ctcore.terminal.closed_streams`."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.kit import make_project
from tests.helpers.shell import environment

CLOSED = """
import os, subprocess, sys
from ctcore.cli import main
sys.argv = ["ct", "-C", sys.argv[1], "status"]
try:
    main()
except SystemExit as ended:
    child = subprocess.run([sys.executable, "-c", "import sys; print('said', file=sys.stderr)"])
    open("seen", "w").write("\\n".join([str(ended.code), str(child.returncode), *map(os.readlink, FD)]))
"""


@pytest.mark.parametrize("closed", [(2,), (1,), (0,), (0, 1, 2)])
def test_a_closed_stream_is_nowhere_and_never_the_catalog(tmp_path: Path, closed: tuple[int, ...]) -> None:
    """As `ct status 2>&-` begins. Else the next file that is opened has its number, and gets what is printed."""
    code = CLOSED.replace("FD", str([f"/proc/self/fd/{one}" for one in closed]))
    without = " ".join(f"{one}>&-" for one in closed)
    command = [
        "sh",
        "-c",
        f'exec "$0" -c "$1" "$2" {without}',
        sys.executable,
        code,
        str(make_project(tmp_path / "own").root),
    ]
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True)
    assert (tmp_path / "seen").read_text().split() == ["3", "0", *["/dev/null"] * len(closed)]
