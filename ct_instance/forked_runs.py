"""Dagster's code server forks its runs from a process that has imported Dagster and ct.

Stock Dagster starts a new Python for each run (dagster/_grpc/server.py), which takes 2 s of processor time to import
what all runs import. The project's own files are read by each run, as before.
"""

import atexit
import io
import os
import sys
import time
from contextlib import suppress
from multiprocessing import forkserver, popen_forkserver, popen_spawn_posix, reduction, spawn
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext, SpawnContext, SpawnProcess, set_spawning_popen
from multiprocessing.util import Finalize
from threading import Lock
from typing import Any

from ct_instance.run_server import RunServer
from ctcore.util.processes import started_at

CONTEXT = "_mp_ctx"
_SERVER = "dagster._grpc.server"
_LOST = 255  # what the standard library says of a process whose fork server was killed
_POLL_S = 0.2
_START_S = 45.0  # whoever asks for a run waits 60


def fork_runs() -> None:
    """Have this process, if it is a code server, fork its runs. Where Dagster names it otherwise: as Dagster does."""
    server: Any = getattr(sys.modules.get(_SERVER), "DagsterApiServer", None)
    if server is None or hasattr(server, CONTEXT) or CONTEXT not in server.__init__.__code__.co_names:
        return

    def context(one: Any) -> BaseContext:
        return _CONTEXT if vars(one)[CONTEXT].get_start_method() == "spawn" else vars(one)[CONTEXT]

    # Servers are being made when their storage is opened. A property comes before what they keep under its name.
    setattr(server, CONTEXT, property(context, lambda one, given: vars(one).update({CONTEXT: given})))


class ForkedRun(SpawnProcess):
    """A process that is forked from the run server and is what a spawned one would be; spawned where there is none."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        KEPT.current()  # here nobody is held up by it; `start` is called within a lock

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        if (server := KEPT.kept) is not None:
            with suppress(OSError, EOFError):  # it was killed: nothing was begun
                return _Popen(process_obj, server)
        return popen_spawn_posix.Popen(process_obj)

    def _bootstrap(self, *args: Any, **named: Any) -> int:
        code = super()._bootstrap(*args, **named)  # pyright: ignore[reportAttributeAccessIssue]
        # A fork of the server leaves by os._exit (multiprocessing/forkserver.py), a new Python does this at its end.
        atexit._run_exitfuncs()  # pyright: ignore[reportAttributeAccessIssue]
        return code


class _Context(SpawnContext):
    Process = ForkedRun  # pyright: ignore[reportAssignmentType]


_CONTEXT = _Context()


class _Popen(popen_forkserver.Popen):
    def __init__(self, process_obj: Any, server: RunServer) -> None:
        self._server = server
        super().__init__(process_obj)

    def _launch(self, process_obj: Any) -> None:
        """As in the standard library, but what to do is written to a process that is known to be there: so without an
        answer nothing was begun, and the run can be spawned."""
        data = io.BytesIO()
        set_spawning_popen(self)  # pyright: ignore[reportArgumentType]
        try:
            reduction.dump(spawn.get_preparation_data(process_obj.name), data)
            reduction.dump(process_obj, data)
        finally:
            set_spawning_popen(None)
        self.sentinel, what = self._server.connect(self._fds)  # pyright: ignore[reportAttributeAccessIssue]
        self.finalizer = Finalize(self, _close, (os.dup(what), self.sentinel))
        with open(what, "wb") as stream:
            self.pid = forkserver.read_signed(self.sentinel)
            self._started = started_at(self.pid)
            stream.write(data.getbuffer())

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Its exit code. A run goes on when the server was killed, and nobody hears how it ends."""
        while super().poll(flag) == _LOST and self._started is not None and started_at(self.pid) == self._started:
            self.returncode = None
            if flag == os.WNOHANG:
                break
            time.sleep(_POLL_S)
        return self.returncode


def _close(*files: int) -> None:
    for one in files:
        os.close(one)


class _Kept:
    """The run server of this process, if there is one that is current."""

    def __init__(self) -> None:
        self.kept: RunServer | None = None
        self._is_refused = False
        self._gone: list[RunServer] = []
        self._lock = Lock()

    def current(self) -> RunServer | None:
        """It, begun anew where it is not what a new Python would be; None where a new Python has to be started."""
        with self._lock:
            self._gone = [one for one in self._gone if not one.is_gone()]
            if self.kept is not None and not self.kept.is_current():
                self._let_go()
            if self.kept is None and not self._is_refused:
                with suppress(OSError, EOFError):
                    self._begin()
            return self.kept

    def _let_go(self) -> None:
        if self.kept is not None:
            self.kept.let_go()
            self._gone.append(self.kept)
        self.kept = None

    def _begin(self) -> None:
        begun = RunServer()
        try:
            self._is_refused = not begun.has_imported(_imported(begun))
        except BaseException:
            self._is_refused = True
            raise
        finally:
            self.kept = begun
            if self._is_refused:
                self._let_go()


KEPT = _Kept()


def _imported(server: RunServer) -> dict[str, str]:
    """What a fork of it has imported: modules by name, with their files. EOFError where it says nothing."""
    reader, writer = _CONTEXT.Pipe(duplex=False)
    with reader:
        with writer:
            process = SpawnProcess(target=_tell, args=(writer,))
            begun = _Popen(process, server)
        if not reader.poll(_START_S):
            raise EOFError
        said = reader.recv()
    begun.wait()
    return said


def _tell(to: Connection) -> None:
    to.send({name: str(one.__file__) for name, one in list(sys.modules.items()) if getattr(one, "__file__", None)})
