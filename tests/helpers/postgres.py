"""A real PostgreSQL server for tests: private, in a temporary folder, gone when this process is.

A small shell watches over it. It waits for the end of a pipe that only this process holds open, so that the server
stops and its folder goes also where this process is killed. For each line in that pipe it starts the server again.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

SECONDS = 60
PLACES = ("usr/local/bin", "usr/lib/postgresql/*/bin")
_PASSING = ("starting up", "in recovery", "not yet accepting", "shutting down", "terminating connection")
_WATCH = """
server=$1 folder=$2; shift 2
"$server" "$@" >"$folder/log" 2>&1 &
trap '' HUP INT TERM
while read -r _; do wait $!; "$server" "$@" >>"$folder/log" 2>&1 & done
kill -INT $! 2>/dev/null
wait $!
cd / && rm -rf "$folder"
"""


class NoPostgres(Exception):
    """There is none on this machine, or it does not start."""


class Server:
    """A running server; `fresh` gives the URL of a new database."""

    def __init__(self, folder: Path, port: int, watcher: "subprocess.Popen[bytes]") -> None:
        self.folder, self.port, self.watcher = folder, port, watcher
        self._names = (f"test_{number}" for number in count(1))

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://ct@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def fresh(self, like: str | None = None) -> Iterator[str]:
        """The URL of a new database, dropped afterwards; empty, or a copy of another one, whose sessions end."""
        name, source = next(self._names), (like or "template1").rpartition("/")[2]
        self.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{source}'")
        self.execute(f"CREATE DATABASE {name} TEMPLATE {source}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run one statement on its own, outside of any transaction."""
        import psycopg2

        with closing(psycopg2.connect(self.url(database))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    def pid(self) -> int:
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    def pids(self) -> list[int]:
        """The server's process and, after it, those that it started: one a connection, and its own helpers."""
        return [(first := self.pid()), *children(first)]

    def crash(self) -> None:
        """Kill -9 of all of it at once; held still meanwhile, so that it starts nothing more."""
        os.kill(self.pid(), signal.SIGSTOP)
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop_at_once(self) -> None:
        """As `pg_ctl stop -m immediate`: nobody's transaction is waited for."""
        os.kill(self.pid(), signal.SIGQUIT)

    def start_again(self) -> None:
        """On the same port, with what was committed; waits until it answers."""
        assert self.watcher.stdin is not None
        self.watcher.stdin.write(b"again\n")
        self.watcher.stdin.flush()
        _wait_for(self, len((self.folder / "log").read_bytes()))


@contextmanager
def server(*, waits_for_disk: bool = False) -> Iterator[Server]:
    """Start a server, and stop it whatever happens. NoPostgres says why there is none.

    Whoever measures commits lets it wait for its disk; tests have better things to do.
    """
    started = _start(waits_for_disk)
    try:
        yield started
    finally:
        _stop(started.watcher)


def _stop(watcher: "subprocess.Popen[bytes]") -> None:
    """Also removes the folder."""
    assert watcher.stdin is not None
    watcher.stdin.close()
    watcher.wait(SECONDS)


def _start(waits_for_disk: bool) -> Server:
    """Somebody else may take the port between asking for it and using it; then with another one."""
    programs = _programs()
    for last in (False, False, True):
        folder = Path(tempfile.mkdtemp(prefix="ct-pg-"))
        try:
            if os.geteuid() == 0:
                shutil.chown(folder, _unprivileged())
            _initdb(programs, folder)
            return _launch(programs, folder, waits_for_disk)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if last or not isinstance(error, NoPostgres):
                raise
    raise AssertionError("not reached")


def _initdb(programs: Path, folder: Path) -> None:
    command = [programs / "initdb", "-D", folder / "data", "-U", "ct", "-A", "trust", "-E", "UTF8", "--no-sync"]
    made = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL, **_options(folder))
    if made.returncode:
        raise NoPostgres(f"initdb failed: {made.stderr.decode(errors='replace').strip()}")


def _programs() -> Path:
    """The folder with initdb and postgres: of the PATH, or else the newest of the usual places."""
    on_path = shutil.which("initdb")
    found = [place for pattern in PLACES for place in sorted(Path("/").glob(pattern), key=_version, reverse=True)]
    for place in ([Path(on_path).resolve().parent] if on_path else []) + found:
        if all(os.access(place / name, os.X_OK) for name in ("initdb", "postgres")):
            return place
    raise NoPostgres("no initdb and postgres on PATH, in /usr/local/bin or /usr/lib/postgresql/*/bin")


def _version(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdigit() else 0


def _unprivileged() -> str:
    """PostgreSQL refuses to run as root."""
    import pwd

    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise NoPostgres("running as root, and there is no user postgres or nobody to run PostgreSQL as")


def _options(folder: Path) -> dict[str, Any]:
    import pwd

    options: dict[str, Any] = {"cwd": folder, "start_new_session": True}
    if os.geteuid() == 0:
        who = pwd.getpwnam(_unprivileged())
        options |= {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
    return options


def _launch(programs: Path, folder: Path, waits_for_disk: bool) -> Server:
    port, durable = _free_port(), "on" if waits_for_disk else "off"
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": folder,
        "fsync": durable,
        "synchronous_commit": "on",  # also one that is killed has what it has said to be committed
        "full_page_writes": durable,
        "max_connections": 200,
        "shared_buffers": "16MB",
        "autovacuum": "off",
        "timezone": "UTC",
        "jit": "off",
    }
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    command = ["sh", "-c", _WATCH, "sh", programs / "postgres", folder, "-D", folder / "data", *arguments]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, **_options(folder))
    started = Server(folder, port, watcher)
    try:
        _wait_for(started)
    except BaseException:
        _stop(watcher)
        raise
    return started


def _wait_for(started: Server, begun_at: int = 0) -> None:
    """`begun_at`: how long its log was before. What is FATAL for one connection is no end of the server."""
    import psycopg2

    deadline, log = time.monotonic() + SECONDS, started.folder / "log"
    while time.monotonic() < deadline:
        said = log.read_bytes()[begun_at:].decode(errors="replace") if log.exists() else ""
        if any("FATAL" in line and not any(one in line for one in _PASSING) for line in said.splitlines()):
            break
        try:
            started.execute("SELECT 1")
        except psycopg2.OperationalError:
            time.sleep(0.05)
        else:
            return
    raise NoPostgres(f"postgres did not start: {said[-2000:]}")


def children(pid: int) -> list[int]:
    """The processes that this one started, and that are still its own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if path.read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(path.parent.name))
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
