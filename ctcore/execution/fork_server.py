"""A process that forks workers: it has imported what every call needs, and nothing of Dagster or of the catalog.

`python -m ctcore.execution.fork_server` reads a request a line, forks a worker for it, and says of each worker, a line
each, that it has begun, how its calls ended, and that it is gone. A worker outlives it, and whoever asked for it.
A run that starts 46 steps starts one Python: a worker of its own for each cost most of what a short step takes.

All workers of one server have its seed of hashes; what a set's order does to a result shows between two runs.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ctcore.code.loader import parse_ahead
from ctcore.execution.call import begun_place, run_calls
from ctcore.execution.private_folder import leave_project, sweep_temporary
from ctcore.projects.heartbeats import start_heartbeat
from ctcore.util.disk_errors import reason_of
from ctcore.util.processes import process_name, run_and_exit, run_in_child, started_at

_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "LOCPATH", "MALLOC_", "GLIBC_")
"""How variables begin that an interpreter or the C library reads when it starts; a worker is given all others."""
_START_S = 60.0
_END_S = 5.0


def _working_directory() -> str:
    """The working directory, unless that is gone."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return os.sep


@dataclass(frozen=True)
class WorkerRequest:
    """What a worker does: the calls in these files, one after another. Paths are absolute."""

    work: str
    store: str
    calls: list[str]
    log: str
    source: str = ""  # the file of their step, if it is one
    directory: str = field(default_factory=_working_directory)
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))


@dataclass
class Worker:
    """A worker that was started, and how its calls ended: `exit code 7`; None as long as nobody knows."""

    pid: int
    started: int | None  # in clock ticks since boot: the kernel gives the number of an ended process again
    ended: str | None = None
    is_gone: bool = False

    @property
    def is_alive(self) -> bool:
        return not self.is_gone and self.started is not None and started_at(self.pid) == self.started


class NoWorkerError(Exception):
    """No worker could be started, and why."""

    def __init__(self, why: str) -> None:
        super().__init__(f"no worker could be started: {why}")


class _Process:
    """A server that runs, and the two ends of its pipes that are ours."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        requests, self.requests = os.pipe()
        self.answers, answers = os.pipe()
        command = [sys.executable, "-u", "-m", __name__]
        self.popen = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=requests,
            stdout=answers,
            # Ctrl-C of the terminal goes to its foreground process group (termios(3)): it is the run that hears it, and
            # decides what its workers do.
            start_new_session=True,
        )
        for end in (requests, answers):
            os.close(end)
        os.set_blocking(self.answers, False)

    def close(self) -> None:
        """End it. A fork of this process may have the ends of its pipes too, so their closing alone may not."""
        self.popen.terminate()
        for end in (self.requests, self.answers):
            os.close(end)
        self.popen.wait()


class ForkServer:
    """The server of this process. It is started when a worker is first wanted, and again where it was killed."""

    def __init__(self) -> None:
        self._process: _Process | None = None
        self._workers: dict[int, Worker] = {}
        self._read = b""
        self._made_for: tuple[object, ...] = ()
        self._lock = threading.RLock()

    def start(self, request: WorkerRequest) -> Worker:
        """Fork a worker. NoWorkerError where this machine can start none."""
        with self._lock:
            try:
                return self._ask(request)
            except (BrokenPipeError, EOFError):  # it was killed, maybe long ago; its workers go on
                self.close()
                try:
                    return self._ask(request)
                except (BrokenPipeError, EOFError):
                    self.close()
                    raise NoWorkerError("the process that starts workers was killed twice") from None
            except OSError as error:
                self.close()
                raise NoWorkerError(reason_of(error)) from error

    def is_running(self, worker: Worker) -> bool:
        """Whether a worker still runs. Where it does not, all that it said of its end is in it."""
        with self._lock:
            is_alive = worker.is_alive
            self._hear(0)  # afterwards: a worker's last word comes before its end
            if is_alive and not worker.is_gone:
                return True
            self._hear_end(worker)
            self._workers.pop(worker.pid, None)
            return False

    def _hear_end(self, worker: Worker) -> None:
        """The server takes a worker's exit code, and says so a moment later."""
        until = time.monotonic() + _END_S
        with suppress(EOFError):  # it was killed, and says nothing any more
            while not worker.is_gone and self._process is not None and time.monotonic() < until:
                self._hear(until - time.monotonic())

    def close(self) -> None:
        """Let the server go; its workers go on."""
        with self._lock:
            if self._process is not None:
                self._process.close()
            self._process, self._read = None, b""

    def _ask(self, request: WorkerRequest) -> Worker:
        _write(self._server(request.environment).requests, json.dumps(asdict(request)).encode() + b"\n")
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            for said in self._hear(until - time.monotonic()):
                if "error" in said:
                    raise NoWorkerError(reason_of(OSError(said["error"], os.strerror(said["error"]))))
                if "begun" in said:
                    return self._workers[said["begun"]]
        raise NoWorkerError(f"the process that starts workers did not answer within {_START_S:.0f} s")

    def _server(self, environment: Mapping[str, str]) -> _Process:
        """The one there is, unless a fork, or variables that only a start of Python reads, ask for another."""
        at_start = tuple(sorted(one for one in environment.items() if one[0].startswith(_READ_AT_START)))
        made_for = os.getpid(), sys.executable, at_start
        if self._process is not None and self._made_for != made_for:
            self.close() if self._made_for[0] == os.getpid() else self._forget()
        if self._process is None:
            self._process = _Process(environment)
            self._made_for = made_for
        return self._process

    def _forget(self) -> None:
        """After a fork: it is the parent's."""
        self._process, self._read, self._workers = None, b"", {}

    def _hear(self, wait_s: float) -> list[dict[str, Any]]:
        """What it has said, kept where it is of a worker's end. EOFError where it is gone and a word was awaited."""
        if self._process is None:
            return []
        answers = self._process.answers
        poll = select.poll()  # `select` takes no number of a file above 1023
        poll.register(answers, select.POLLIN)
        if not poll.poll(max(wait_s, 0) * 1000):
            return []
        read = _all(answers)
        if not read and wait_s:
            raise EOFError
        self._read += read
        *lines, self._read = self._read.split(b"\n")
        said = [json.loads(line) for line in lines]
        for one in said:
            if "begun" in one:
                self._workers[one["begun"]] = Worker(one["begun"], one["started"])
            if (worker := self._workers.get(one.get("of", 0))) is not None:
                worker.ended = one.get("ended", worker.ended)
                worker.is_gone = worker.is_gone or one.get("gone", False)
        return said


KEPT = ForkServer()


def _write(pipe: int, data: bytes) -> None:
    while data:
        data = data[os.write(pipe, data) :]


def _all(pipe: int) -> bytes:
    """What lies in it now."""
    read = b""
    with suppress(BlockingIOError):
        while more := os.read(pipe, 1 << 16):
            read += more
    return read


def main() -> None:
    """Serve until nobody asks any more."""
    requests, answers, nowhere = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(2, 1)  # whatever a library prints is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    awake, wake = os.pipe()
    for end in (awake, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    # Only a signal with a Python handler writes into the wakeup pipe (docs.python.org, signal.set_wakeup_fd); and
    # with SIG_IGN, the kernel would keep no exit codes (wait(2), notes).
    signal.signal(signal.SIGCHLD, lambda *_: None)
    rest = b""
    while True:
        ready, _, _ = select.select([requests, awake], [], [])
        if awake in ready:
            with suppress(BlockingIOError):
                os.read(awake, 1 << 12)
            _reap(answers)
        if requests in ready:
            read = os.read(requests, 1 << 20)
            if not read:
                return
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                _fork(WorkerRequest(**json.loads(line)), answers)


def _fork(request: WorkerRequest, answers: int) -> None:
    if request.source:
        parse_ahead(Path(request.source))
    try:
        # This process has one thread and imports nothing that starts others: of several, only the forking one goes on
        # in the child, and a lock that another one held stays locked there (fork(2)).
        child = os.fork()
    except OSError as error:
        _say(answers, error=error.errno)
        return
    if child:
        _say(answers, begun=child, started=started_at(child))
        return
    run_and_exit(lambda: _become_worker(request, answers))


def _become_worker(request: WorkerRequest, answers: int) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(request.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.clear()
    os.environ.update(request.environment)
    time.tzset()  # the C library has read TZ already, and reads it again only when told to (tzset(3))
    os.chdir(request.directory)
    # `python -m` puts the working directory first (docs.python.org, sys.path): the server's is that of its own start.
    sys.path[0] = request.directory
    ended = _work(request, answers)
    # Said by the worker: the calls ran in its child, and only a parent learns how a process ended (wait(2)).
    _say(answers, of=os.getpid(), ended=ended)


def _work(request: WorkerRequest, answers: int) -> str:
    """In the worker: SIGTERM ends it, its staged folder is removed. Whatever its calls have started and left running
    ends with it, as it does on Slurm. Gives how it ended, as a call may end its process."""
    # Calls must not see the catalog's password, nor Dagster's variables, whatever started the run.
    leave_project()
    sweep_temporary()
    start_heartbeat(Path(request.work), process_name(), tidies=False)  # the run has done it

    def calls() -> None:
        os.close(answers)  # they have nobody to answer
        run_calls(request.work, request.store, _begun(request.calls))

    return run_in_child(calls)


def _begun(calls: Iterable[str]) -> Iterator[str]:
    """Each call, once its turn comes, where nobody has withdrawn it or given it to another worker."""
    for path in map(Path, calls):
        try:
            begun = path.rename(begun_place(path))
        except FileNotFoundError:
            continue
        yield str(begun)


def _reap(answers: int) -> None:
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            why = {"ended": f"its worker ended with exit code {code}"} if code > 0 else {}
            _say(answers, of=pid, gone=True, **why)


def _say(answers: int, **said: Any) -> None:
    with suppress(OSError):  # nobody listens any more
        # Server and workers share this pipe. A line of up to PIPE_BUF (4096) bytes is written in one piece (pipe(7)).
        os.write(answers, json.dumps(said).encode() + b"\n")


if __name__ == "__main__":
    main()
