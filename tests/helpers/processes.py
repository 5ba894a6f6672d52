"""Other processes that open the same catalog, begun at one moment."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_BEGIN = """
import sys
from pathlib import Path
from ctcore.catalog.engine import Catalog
import ctcore.catalog.migrations, alembic.command
url, journal, who = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
catalog = Catalog(url, "toy", Path(journal), who).open()
"""


def together(url: str, journal: Path, bodies: Sequence[str]) -> list[tuple[int, str]]:
    """Open the catalog in one process a body and run it there, all at once: exit code and errors of each."""
    begun = [_begin(url, journal, f"writer{number}", body) for number, body in enumerate(bodies)]
    try:
        for child in begun:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
        for child in begun:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        return [(child.wait(120), child.communicate()[1]) for child in begun]
    finally:
        for child in begun:
            child.kill()
            child.communicate()


def _begin(url: str, journal: Path, who: str, body: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", _BEGIN + body, url, str(journal), who]
    root = Path(__file__).parents[2]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=root, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
