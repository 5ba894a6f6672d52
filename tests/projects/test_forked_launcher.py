"""A launcher that is forked from `ct` is the process that a new Python would be."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ctcore.projects.forked_launcher import may_fork
from tests.helpers.kit import make_project
from tests.helpers.shell import environment

LAUNCH = """
def run(): ...  # the command that is asked for
import json, os, signal, sys
handlers = {one.name: str(signal.getsignal(one)) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
found = {
    "arguments": sys.argv[1:], "folder": os.getcwd(), "name": __name__, "path": sys.path[0], "handlers": handlers,
    "home": os.environ.get("DAGSTER_HOME"), "other": os.environ.get("OTHER"), "leads": os.getsid(0) == os.getpid(),
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "front": os.environ["CT_FRONT"] == str(os.getppid()),
}
print(json.dumps(found))
exec(os.environ.get("THEN", ""))
"""
FRONT = """
import sys, threading
from pathlib import Path
from ctcore.project import Project
from ctcore.projects.dagster_home import launch
from ctcore.projects.forked_launcher import may_fork
project = Project.find(Path(sys.argv[1]))
if sys.argv[2] == "new":
    threading.Thread(target=threading.Event().wait, daemon=True).start()
print("forks" if may_fork(project.root) else "starts", flush=True)
print(launch(project, "run", "--some", "A B"))
print("the front goes on")
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_project(tmp_path / "toy")
    (tmp_path / "toy" / "ct_assets").mkdir()
    (tmp_path / "toy" / "ct_assets" / "__init__.py").touch()
    (tmp_path / "toy" / "ct_assets" / "launch.py").write_text(LAUNCH)
    return tmp_path / "toy"


def front(root: Path, how: str, **variables: str) -> list[str]:
    command = [sys.executable, "-c", FRONT, str(root), how]
    env = environment(OTHER="kept", OPENBLAS_NUM_THREADS="1", **variables)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_fork_is_as_a_new_process_is(root: Path) -> None:
    forked, new = front(root, "fork"), front(root, "new")
    assert (forked[0], new[0]) == ("forks", "starts")
    assert json.loads(forked[1]) == json.loads(new[1])
    assert json.loads(new[1])["arguments"] == ["run", "--some", "A B"] and json.loads(new[1])["leads"]
    assert forked[2:] == new[2:] == ["0", "the front goes on"]


@pytest.mark.parametrize(
    ("then", "code"),
    [
        ("sys.exit(3)", "3"),
        ("sys.exit('why')", "1"),
        ("1 / 0", "1"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "143"),
        ("import atexit; atexit.register(print, 'last')", "last"),
    ],
)
def test_a_forks_end_is_that_of_a_new_process(root: Path, then: str, code: str) -> None:
    forked, new = front(root, "fork", THEN=then), front(root, "new", THEN=then)
    assert forked[2:] == new[2:] and forked[2] == code


def test_what_has_threads_or_an_open_catalog_does_not_fork(tmp_path: Path) -> None:
    """Its streams aside: a test has others."""
    asked = """
import sys
from pathlib import Path
from ctcore.project import Project
from ctcore.projects.forked_launcher import may_fork
project = Project.find(Path(sys.argv[1]))
with project.catalog.read():
    print(may_fork(project.root))
print(may_fork(project.root))
(project.root / "ctcore").mkdir()
print(may_fork(project.root))
"""
    project = make_project(tmp_path / "toy")
    command = [sys.executable, "-c", asked, str(project.root)]
    env = environment(OPENBLAS_NUM_THREADS="1")
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.split() == ["False", "True", "False"]
    assert not may_fork(project.root)  # what this process prints goes to pytest
