"""What started programs open and run, by strace where it is at hand. It needs no privilege.

Only those calls of the kernel stop that open a file or start a process (a seccomp filter); the tracer stands beside
the child, whose number, signals and exit code stay its own. That costs some milliseconds a start, see `worth`.
"""

import inspect
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ctcore.execution.allowed_reads import SYSTEM
from ctcore.execution.command_lines import INTERPRETERS, PLUMBING
from ctcore.store.digest import digest_value
from ctcore.util.atomic_file import write_json

# 3 % is the limit for watching a call of 100 ms; `python -m benchmarks watching` measures it.
SHARE = 0.03
"""Of a call's time, what tracing may cost of every call of a step. Above it, one call of each version is traced."""
FOLDER = "traced"
_LOGS, _START = ".traced-", ".start"
_START_S, _LINE_S = 0.006, 0.0003  # what a start and an opened file cost, measured
# -DD: the tracer is a grandchild, so the program keeps the parent, the number and the exit code that the step sees.
# --seccomp-bpf: only the listed calls stop; without it, every system call of the program does (strace(1)).
_OPTIONS = ("-DD", "-f", "--seccomp-bpf", "-y", "-z", "-q", "-e", "signal=none", "-e")
# -y: the path behind each descriptor, so that a file is known by its real place; -z: only calls that succeeded.
_CALLS = "trace=open,openat,openat2,execve,execveat,chdir,fchdir,fork,vfork,clone,clone3"
_TEXT = r'"(?:[^"\\]|\\.)*"'
_OPENED = re.compile(
    rf"open(?:at2?)?\((?:(?:AT_FDCWD<(?P<cwd>[^>]*)>|\d+<[^>]*>), )?{_TEXT}, (?P<how>.*?)\) += \d+<(?P<path>/.*)>$"
)
_RAN = re.compile(rf"execve(?:at)?\((?:\S+, )?(?P<path>{_TEXT})")
_WENT = re.compile(rf"chdir\((?:(?P<path>{_TEXT})|\d+<(?P<place>[^>]*)>)\) += 0$")
_FORKED = re.compile(r"(?:v?fork|clone3?)\(.*\) += (?P<child>\d+)$")
_LONG = 100_000
_TRACERS = frozenset({"strace", "ltrace", "gdb", "lldb", "rr", "valgrind"})  # one process has one tracer


T = TypeVar("T")


class OpenedFile(NamedTuple):
    """A file that a program opened, by its real place."""

    path: str
    reads: bool
    makes: bool


class StartedProgram(NamedTuple):
    """A program that was run. `inner`: by another program as a part of itself, not by what somebody wrote here."""

    path: str
    inner: bool


class PrivilegedProgram(Exception):
    """A program has privileges of its own (setuid), which the tracer takes away: the call is made again without it."""


class Tracer:
    """The children of one call, from `with` on. `where` gives the line of the step that starts one."""

    def __init__(self, folder: Path, where: Callable[[], str]) -> None:
        self.folder, self.where = folder, where
        self._begun = time.monotonic()
        self._number = count()

    def __enter__(self) -> "Tracer":
        _patch(self)
        return self

    def __exit__(self, *_: object) -> None:
        _patch(None)

    def words(self, words: Sequence[Any], cwd: Any, env: Mapping[Any, Any] | None) -> list[Any] | None:
        """The command that starts a command and traces it; None where it cannot be."""
        folder = os.path.abspath(os.fsdecode(cwd or "."))
        if not words or (strace := find_tracer()) is None or not _is_plain(os.fsdecode(words[0]), folder, env):
            return None
        # The arguments of the tracer come on top, and execve has one limit for all (ARG_MAX).
        if sum(len(os.fsencode(word)) for word in words) > _LONG:  # its own words might be too many
            return None
        log = self.folder / f"{_LOGS}{os.getpid()}-{next(self._number)}"
        write_json(log.with_suffix(_START), [self.where(), folder])  # a fork of the step may be who starts it
        return [strace, *_OPTIONS, _CALLS, "-o", str(log), "--", *words]

    @cached_property
    def _logs(self) -> list[tuple[str, str, list[str]]]:
        """Of each start its line, its folder and what strace wrote; read once, when the call has ended."""
        starts = sorted(self.folder.glob(f"{_LOGS}*{_START}"))
        return [(*json.loads(one.read_bytes()), _lines(one.with_suffix(""))) for one in starts]

    @cached_property
    def traced_calls(self) -> list[tuple[OpenedFile | StartedProgram, str]]:
        """What each of them did, with the line of the step."""
        return [(one, line) for line, cwd, lines in self._logs for one in _read(lines, cwd)]

    def check(self) -> None:
        """Raises Hindered."""
        for one, _ in self.traced_calls:
            if isinstance(one, StartedProgram) and (_is_privileged(one.path) or os.path.basename(one.path) in _TRACERS):
                raise PrivilegedProgram(one.path)

    @property
    def share(self) -> float:
        """About what it costs, of the time that the call takes without it."""
        cost = sum(_START_S + _LINE_S * len(lines) for _, _, lines in self._logs)
        return cost / max(time.monotonic() - self._begun - cost, 0.001)


class Worth:
    """Whether the calls of one version of a step are traced: what is known of that lies in a file of its own."""

    def __init__(self, work: Path, recipe: Mapping[str, Any]) -> None:
        self.place = work / FOLDER / f"{digest_value('ct.traced.v1', recipe)}.json"

    def wants(self, how: str) -> bool:
        """`how` is `[run] trace`."""
        said = self._read()
        return "hindered" not in said and (how == "always" or (how == "sparing" and said.get("share", 0.0) < SHARE))

    def cost(self, share: float) -> None:
        """What tracing cost a call; what is known already is not written again and again."""
        before = self._read().get("share")
        if before is None or (before < SHARE) != (share < SHARE):
            self._keep({"share": round(share, 4)})

    def hindered(self, by: str) -> None:
        self._keep({"hindered": by})

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.place.read_bytes()))
        except (OSError, ValueError, TypeError):
            return {}

    def _keep(self, said: Mapping[str, Any]) -> None:
        with suppress(OSError):  # a place that one may only read
            write_json(self.place, said)


def without_tracer(words: Sequence[Any]) -> Sequence[Any]:
    """The command itself, of one that starts with the tracer."""
    is_traced = len(words) > 1 and words[0] == find_tracer() and words[1] == _OPTIONS[0]
    return words[words.index("--") + 1 :] if is_traced else words


@cache
def find_tracer() -> str | None:
    """The tracer, where there is one and it may trace. Asked when the first program is started."""
    found = shutil.which("strace")
    # Tried, and not only looked for: a container may forbid ptrace, and an old strace may lack --seccomp-bpf.
    tried = [str(found), *_OPTIONS, _CALLS, "-o", os.devnull, "--", "/bin/sh", "-c", ":"]
    if found is None:
        return None
    with _Untraced(tried, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        said = process.communicate()[1]
    return found if process.returncode == 0 and not said else None


def _is_plain(name: str, cwd: str, env: Mapping[Any, Any] | None) -> bool:
    """Whether a program can be started by another one in the same way: it is there, and has no privileges."""
    path = (os.environ if env is None else env).get("PATH")
    found = os.path.join(cwd, name) if "/" in name else shutil.which(name, path=os.fsdecode(path or "")) or ""
    try:
        with open(found, "rb") as file:
            # A script's first line counts up to 255 bytes (execve(2), interpreter scripts).
            begins = file.read(256)
    except OSError:
        return False
    may = os.access(found, os.X_OK) and not _is_privileged(found) and os.path.basename(found) not in _TRACERS
    return may and _can_begin(begins, cwd)


def _can_begin(begins: bytes, cwd: str) -> bool:
    """Whether the system will start it, so that the tracer does not fail in its place: a program for this machine, or a
    script whose interpreter is there."""
    if begins.startswith(b"#!"):
        words = begins[2:].splitlines()[0].split()
        return bool(words) and os.access(os.path.join(cwd, os.fsdecode(words[0])), os.X_OK)
    # Bytes 0 to 5 of an ELF file: magic, 32 or 64 bit, byte order; 18 and 19: the machine (elf(5)).
    own = _machine()
    return len(begins) > 64 and begins[:6] == own[:6] and begins[18:20] == own[18:20]


@cache
def _machine() -> bytes:
    """How a program for this machine begins."""
    with open(sys.executable, "rb") as file:
        return file.read(20)


def _is_privileged(path: str) -> bool:
    try:
        found = os.stat(path).st_mode
    except OSError:
        return False
    # A traced program starts without such privileges (execve(2)): it would fail, or do something else.
    if found & (stat.S_ISUID | stat.S_ISGID):
        return True
    with suppress(OSError):
        return bool(os.getxattr(path, "security.capability"))
    return False


def _lines(log: Path) -> list[str]:
    try:
        return log.read_text("ascii", "replace").splitlines()
    except FileNotFoundError:
        return []


def _read(lines: Sequence[str], cwd: str) -> Iterator[OpenedFile | StartedProgram]:
    parents = {found["child"]: line.split(None, 1)[0] for line in lines if (found := _FORKED.search(line))}
    folders: dict[str, str] = {}
    images: dict[str, tuple[str, bool]] = {}  # what a process runs, and whether that is a part of another program

    def known(process: str, of: Mapping[str, T]) -> T | None:
        """What a process has from its own parent, where it has nothing of its own."""
        while process not in of and process in parents:
            process = parents[process]
        return of.get(process)

    def place(process: str, path: str) -> str:
        return os.path.normpath(os.path.join(known(process, folders) or cwd, _plain(path[1:-1])))

    for line in lines:
        process = line.split(None, 1)[0]
        if (opened := _OPENED.search(line)) is not None:
            if opened["cwd"]:
                folders[process] = _plain(opened["cwd"])
            how = opened["how"]
            if "O_DIRECTORY" not in how:
                makes = "O_TRUNC" in how or "O_EXCL" in how
                yield OpenedFile(_plain(opened["path"]), reads="O_WRONLY" not in how, makes=makes)
        elif (went := _WENT.search(line)) is not None:
            folders[process] = place(process, went["path"] or f'"{went["place"]}"')
        elif (ran := _RAN.search(line)) is not None:
            path = place(process, ran["path"])
            before = known(process, images)
            inner = before is not None and (_has_parts(before[0]) or (before[1] and not _interprets(before[0])))
            images[process] = path, inner
            yield StartedProgram(path, inner)


def _has_parts(program: str) -> bool:
    """Whether what a program runs is its own affair: not of a shell, an interpreter or a script of somebody's own."""
    if os.path.basename(program) in PLUMBING or _interprets(program):
        return False
    if program.startswith(SYSTEM) or os.path.basename(program) == "R":  # a script that starts R itself
        return True
    try:
        with open(program, "rb") as file:
            return file.read(2) != b"#!"
    except OSError:
        return False


def _interprets(program: str) -> bool:
    return program.endswith("/exec/R") or os.path.basename(program).rstrip("0123456789.") in INTERPRETERS


def _plain(text: str) -> str:
    """strace writes bytes that are not ASCII in octal."""
    # Forms such as \303\244; a name need not be UTF-8.
    return os.fsdecode(re.sub(rb"\\([0-7]{1,3}|.)", _byte, text.encode("ascii", "replace")))


_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"v": b"\v", b"f": b"\f"}


def _byte(found: re.Match[bytes]) -> bytes:
    said = found[1]
    return bytes([int(said, 8)]) if said.isdigit() else _ESCAPES.get(said, said)


_POPEN, _SHELL = subprocess.Popen.__init__, os.system
_SIGNATURE = inspect.signature(_POPEN)


class _Untraced(subprocess.Popen[bytes]):
    __init__ = _POPEN


def _patch(tracer: Tracer | None) -> None:
    """While a call runs, whoever starts a program goes by here."""

    def begin(self: Any, *args: Any, **named: Any) -> None:
        given = _SIGNATURE.bind(self, *args, **named)
        said = given.arguments
        traced = tracer and _traced(tracer, said)
        if not traced:
            return _POPEN(self, *args, **named)
        words = said["args"]
        said.update(args=traced, shell=False, executable=None)
        _POPEN(*given.args, **given.kwargs)
        self.args = words  # which errors quote
        return None

    def shell(command: Any) -> int:
        # As os.system: descriptors are inherited, and the status is that of wait(2).
        code = subprocess.Popen(["/bin/sh", "-c", command], close_fds=False).wait()
        return code << 8 if code >= 0 else -code

    subprocess.Popen.__init__, os.system = (_POPEN, _SHELL) if tracer is None else (begin, shell)  # type: ignore[method-assign]


def _traced(tracer: Tracer, said: Mapping[str, Any]) -> list[Any] | None:
    words, program = said["args"], said.get("executable")
    if any(said.get(name) is not None for name in ("user", "group", "extra_groups")):
        return None
    listed = [words] if isinstance(words, str | bytes | os.PathLike) else list(words)
    if said.get("shell"):
        listed = [program or "/bin/sh", "-c", *listed]
    elif program is not None and program != listed[0]:
        return None
    return tracer.words(listed, said.get("cwd"), said.get("env"))
