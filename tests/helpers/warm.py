"""Processes of `ct` for tests that have imported everything: forked from one that has done nothing but that.

A process of `ct run` takes 3 s of processor, of which 2 s are imports: of its front, and of Dagster behind it. What
Python itself does at its start is as in a process of its own: arguments, environment, current folder, streams, exit.
`python -m tests.helpers.warm FD` is the server: it ends when the other end of the socket is closed.
"""

import atexit
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

# What Python and the libraries read at their start, where nobody has changed it yet
_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "OMP_", "OPENBLAS_", "MALLOC_", "TZ")
_ALSO = ("alembic.command", "dagster", "dagster_postgres", "numpy", "rich.console")
_LAUNCHING = ("run", "register", "purge")
_ENDING = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


class Warm:
    """The server of this process."""

    def __init__(self) -> None:
        self.at_start = _at_start(os.environ)
        self.here, there = socket.socketpair()
        with there:
            command = [sys.executable, "-m", "tests.helpers.warm", str(there.fileno())]
            root = Path(__file__).parents[2]
            env = {**os.environ, "PYTHONPATH": str(root)}
            quiet = subprocess.DEVNULL
            self.process = subprocess.Popen(
                command, cwd=root, env=env, stdin=quiet, stdout=quiet, pass_fds=[there.fileno()]
            )
        atexit.register(self._end, os.getpid())

    def _end(self, begun: int) -> None:
        if os.getpid() == begun:  # a fork of this process ends too
            self.here.close()
            self.process.wait(60)

    def run(
        self, arguments: Sequence[str], at: Path, env: Mapping[str, str], seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """`ct` with these arguments; `subprocess.TimeoutExpired` where it takes longer."""
        mine, its = socket.socketpair()
        with mine:
            outputs = [os.pipe(), os.pipe()]
            asked = {"arguments": list(arguments), "at": str(at), "env": dict(env), "umask": _umask()}
            try:
                socket.send_fds(self.here, [b"."], [its.fileno(), *(write for _, write in outputs)])
            finally:
                for fd in (its.detach(), *(write for _, write in outputs)):
                    os.close(fd)
            text = json.dumps(asked).encode()
            mine.sendall(len(text).to_bytes(8) + text)
            said = [b"", b""]

            def read(which: int) -> None:
                with open(outputs[which][0], "rb") as stream:
                    said[which] = stream.read()

            readers = [threading.Thread(target=read, args=(which,), daemon=True) for which in (0, 1)]
            for reader in readers:
                reader.start()
            mine.settimeout(seconds)
            try:
                code = int(mine.recv(16) or b"1000")
            except TimeoutError as error:
                raise subprocess.TimeoutExpired(list(arguments), seconds) from error
            for reader in readers:
                reader.join(seconds)
        out, err = (io.TextIOWrapper(io.BytesIO(one)).read() for one in said)  # `text=True` reads any end of a line
        assert code != 1000, f"the server of warm processes ended: {err}"
        return subprocess.CompletedProcess(list(arguments), code, out, err)


@cache
def _server(owner: int) -> Warm:
    return Warm()


def _at_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: said for name, said in env.items() if name.startswith(_AT_START) and name != "PYTHONPATH"}


def is_warm(env: Mapping[str, str]) -> bool:
    """Whether a process of this environment may be forked: nothing is in it that is only read at the start."""
    return _at_start(env) == _server(os.getpid()).at_start


def _umask() -> int:
    found = os.umask(0o77)
    os.umask(found)
    return found


def warm(
    arguments: Sequence[str], at: Path | None, env: Mapping[str, str], seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run `ct` in a process that has imported everything: exit code, stdout, stderr."""
    return _server(os.getpid()).run(arguments, at or Path.cwd(), env, seconds)


# The server


def _import_all() -> None:
    import ctcore

    for name in _ALSO:
        importlib.import_module(name)
    for found in pkgutil.walk_packages(ctcore.__path__, "ctcore."):
        if (
            not found.name.startswith(("ctcore._project", "ctcore.catalog.migrations."))
            and "__main__" not in found.name
        ):
            importlib.import_module(found.name)


def _serve(requests: socket.socket) -> dict[str, Any]:
    """For each request a child, which waits for the process that does it. Returns in that process only."""
    while True:
        began, fds, _, _ = socket.recv_fds(requests, 1, 3)
        if not began:
            os._exit(0)
        if os.fork() == 0:
            requests.close()
            return _begun(socket.socket(fileno=fds[0]), fds[1:])
        for fd in fds:
            os.close(fd)
        while True:  # children that have ended
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break


def _begun(answer: socket.socket, outputs: Sequence[int]) -> dict[str, Any]:
    with answer.makefile("rb") as stream:
        asked = json.loads(stream.read(int.from_bytes(stream.read(8))))
    child = os.fork()
    if child:
        for fd in outputs:
            os.close(fd)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answer.sendall(str(code).encode())
        os._exit(0)
    answer.close()
    for fd, output in zip((1, 2), outputs, strict=True):
        os.dup2(output, fd)
        os.close(output)
    return asked


def _prepare(asked: Mapping[str, Any]) -> None:
    """Whatever was read when the server began is as if this process had begun now."""
    os.chdir(asked["at"])
    os.environ.clear()
    os.environ.update(asked["env"])
    os.umask(asked["umask"])
    tempfile.tempdir = None


class _Spare:
    """A child of the front that has done nothing yet: it becomes the one process that the front may start."""

    def __init__(self) -> None:
        self.reads, self.writes = os.pipe()
        self.pid = os.fork()
        os.close(self.reads if self.pid else self.writes)

    def become(self) -> None:
        """In the child: wait until the front starts it as the launcher, or ends."""
        with open(self.reads, "rb") as stream:
            text = stream.read()
        if not text:
            os._exit(0)
        asked = json.loads(text)
        os.setsid()
        _prepare(asked)
        for number in asked["ignored"]:
            signal.signal(number, signal.SIG_IGN)  # as over exec: what was caught is not
        signal.pthread_sigmask(signal.SIG_SETMASK, asked["blocked"])
        gc.disable()
        sys.argv, sys.path[0] = ["-c", *asked["arguments"]], ""
        runpy.run_module("ct_assets.launch", run_name="__main__", alter_sys=True)

    def Popen(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], start_new_session: bool) -> Any:
        """What `dagster_home.launch` calls: another command, and a second one, is started as ever."""
        assert start_new_session
        if command[:2] != [sys.executable, "-c"] or "ct_assets.launch" not in command[2] or self.writes < 0:
            return subprocess.Popen(command, cwd=cwd, env=env, start_new_session=True)
        asked = {
            "at": str(cwd),
            "env": dict(env),
            "umask": _umask(),
            "arguments": list(command[3:]),
            "blocked": [int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
            "ignored": [int(one) for one in _ENDING if signal.getsignal(one) is signal.SIG_IGN],
        }
        with open(self.writes, "wb") as stream:
            stream.write(json.dumps(asked).encode())
        self.writes = -1
        return self

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def main() -> None:
    requests = socket.socket(fileno=int(sys.argv[1]))
    _import_all()
    assert threading.active_count() == 1, "a fork has the thread that forks and no other"
    gc.collect()
    gc.freeze()
    asked = _serve(requests)
    _prepare(asked)
    from ctcore import cli
    from ctcore.projects import dagster_home

    sys.argv = [str(Path(cli.__file__).with_name("__main__.py")), *asked["arguments"]]
    sys.path[0] = os.getcwd()
    if any(one in asked["arguments"] for one in _LAUNCHING):
        spare = _Spare()
        if spare.pid == 0:
            spare.become()
            return
        dagster_home.subprocess = spare  # type: ignore[assignment]
    cli.main()


if __name__ == "__main__":
    main()
