"""A process that runs are forked from: as long as it is what a new Python would be."""

import os
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from multiprocessing.forkserver import ForkServer
from pathlib import Path

from ctcore.code.environment import is_installed
from ctcore.store.digest import Signature

_IMPORTS = "ct_instance.run_imports"


class RunServer:
    """Forks runs. It has imported `ct_instance.run_imports`, and has what a new Python of this process would have.

    A fork server of the standard library (Lib/multiprocessing/forkserver.py): it ends when neither this process nor a
    run that it has forked is left.
    """

    def __init__(self) -> None:
        self._began, self._places = time.time_ns(), _places(sys.path)
        self._environment = dict(os.environ)
        self.imported: Mapping[str, str] = {}
        self._signatures: Mapping[str, Signature | None] = {}
        self._listed: Mapping[str, frozenset[str]] = {}
        self._server = ForkServer()
        self._server.set_forkserver_preload([_IMPORTS])
        self._server.ensure_running()

    @property
    def pid(self) -> int | None:
        return getattr(self._server, "_forkserver_pid", None)

    def connect(self, files: list[int]) -> tuple[int, int]:
        """Fork. Where its number and its exit code can be read, and where it reads what it is to do."""
        return self._server.connect_to_new_process(files)

    def has_imported(self, modules: Mapping[str, str]) -> bool:
        """Keep what it has imported, by name and file. Whether it may fork: it has one thread, and each module from the
        file that this process has it from."""
        self.imported = modules
        files = {*modules.values(), os.path.realpath(sys.executable)}
        self._signatures = {file: _signature(file) for file in files}
        self._listed = _listed(sys.path, modules)
        here = {name: getattr(sys.modules.get(name), "__file__", None) for name in modules}
        try:
            # Of several threads only the forking one goes on in a child, and locks of the others stay locked (fork(2)).
            # OpenBLAS ends its own before a fork, and begins them again where they are used.
            threads = len(os.listdir(f"/proc/{self.pid}/task"))
        except OSError:  # not Linux
            return False
        return threads == 1 and all(here[name] in (None, file) for name, file in modules.items())

    def is_current(self) -> bool:
        """Whether a new Python would import the same now: variables, libraries and files are as they were."""
        return (
            self._environment == dict(os.environ)
            and self._places == _places(sys.path)
            and self._listed == _listed(sys.path, self.imported)
            # A file that was written after it began may have been read before or after.
            and all(one is None or one.settled(self._began) for one in self._signatures.values())
            and all(one == _signature(file) for file, one in self._signatures.items())
        )

    def let_go(self) -> None:
        """Fork no more. It ends after its last run, whose exit code it tells."""
        alive = getattr(self._server, "_forkserver_alive_fd", None)
        if alive is not None:
            os.close(alive)

    def is_gone(self) -> bool:
        """Whether it has ended since it was let go."""
        with suppress(ChildProcessError):
            return self.pid is None or os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return True


def _signature(file: str) -> Signature | None:
    with suppress(OSError):
        return Signature.of(file)
    return None


def _places(path: Iterable[str]) -> Mapping[str, int | None]:
    """The folders of packages, with their times: each is another one when something was installed there or removed."""
    seen = {place: _signature(place) for place in path if is_installed(Path(place))}
    return {place: one and one.mtime_ns for place, one in seen.items()}


def _listed(path: Iterable[str], modules: Iterable[str]) -> Mapping[str, frozenset[str]]:
    """What other folders, such as the project's, have under the names of imported modules. What else is in them changes
    all the time."""
    tops, found = {name.partition(".")[0] for name in modules}, {}
    for place in path:
        if not is_installed(Path(place)):
            with suppress(OSError):
                found[place] = frozenset(one for one in os.listdir(place or ".") if one.partition(".")[0] in tops)
    return found
