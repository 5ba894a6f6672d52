"""Undeclared reads of a call: files, modules, programs and variables, as Python's audit events report them.

One audit hook per process. It cannot be removed, and it ignores everything outside calls. Reads of a started program
are seen if it is traced (`execution.strace`), otherwise as far as its arguments name files. Reads of a compiled library
are not seen; `[run] sandbox = "strict"` prevents them.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from ctcore.execution import strace
from ctcore.execution.allowed_reads import CT, LIBRARY, STDLIB, SYSTEM, AllowedReads, folders
from ctcore.execution.command_lines import PLUMBING, PROBES, commands, shell_commands
from ctcore.execution.strace import OpenedFile, Tracer, without_tracer
from ctcore.util import json_text

MOST = 50
OWN = frozenset({"TMPDIR", "TEMP", "TMP", "PWD"})
_WORDS = 1000  # of a command, looked at
_NOTES = ".seen-"
_EXECUTE = f"{CT}execution/call.py"
_IS_SHARED = re.compile(r"\.so(\.\d+)*$")
_MAPPINGS = {"<frozen os>", "<frozen _collections_abc>", os.__file__, sys.modules["_collections_abc"].__file__}
_TRACER = strace.__file__
_PASSED = ("<", *STDLIB, _TRACER)

Told = dict[str, str]
"""One thing that was read: its `kind` (file, module, program, environment; missed, where it was looked for in vain),
`what` it is, `at` which line of the step."""


class ObservedReads:
    """The reads of one call of a step. It listens inside `with seen:`, which may be entered again."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.found: dict[tuple[str, str], str] = {}
        self.written: set[str] = set()
        self._looked_at: set[str] = set()
        self._notes: Path | None = None
        self._root: Path | None = None
        self._pid = os.getpid()
        self._own: tuple[str, ...] = ()
        self._passed: tuple[str, ...] = SYSTEM
        self._made: set[str] = set()
        self._plain: set[str] = set()  # folders without a link on the way
        self._copied: tuple[int, int] | None = None

    def inside(self, *own: str, notes: Path, root: Path) -> "ObservedReads":
        """`own`: folders of the call itself. Its forks write their reads to `notes`; `root` is the project."""
        self._own = folders(own)
        self._passed = (*self._own, *SYSTEM)
        self._notes, self._root = notes, root
        return self

    def __enter__(self) -> "ObservedReads":
        _install()
        _Now.seen = self
        _patch(self)
        return self

    def __exit__(self, *_: object) -> None:
        _Now.seen = None
        _patch(None)

    def undeclared(self, known: AllowedReads) -> list[Told]:
        """The undeclared reads, sorted: at most MOST, and the number of the others."""
        found = {**_at_import.get(self.step, {}), **self._of_forks(), **self.found}
        told: list[Told] = []
        for (kind, what), at in found.items():
            if not _is_declared(kind, what, known) and (kind not in ("file", "module") or os.path.exists(what)):
                told.append({"kind": kind, "what": known.shown(what), **({"at": at} if at else {})})
        told.sort(key=lambda one: (one["kind"], one["what"]))
        more = len(told) - MOST
        return told if more <= 0 else [*told[:MOST], {"kind": "more", "what": str(more)}]

    def _of_forks(self) -> dict[tuple[str, str], str]:
        found: dict[tuple[str, str], str] = {}
        for path in _notes_in(self._notes) if self._notes else ():
            for line in path.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):  # one that was killed may have written half a line
                    kind, what, at = json_text.loads(line)
                    found[kind, what] = at
        return found

    def record_open(self, path: Any, _mode: Any = None, flags: Any = None) -> None:
        text = _absolute(path)
        if text is not None and text.startswith(self._own or ("\0",)):
            text = self._behind(text)
        flags = flags if isinstance(flags, int) else os.O_RDONLY
        access = flags & os.O_ACCMODE
        is_known = access == os.O_RDONLY and text in self._looked_at
        if text is None or is_known or text.startswith(self._passed):
            return self.record_missed_path(path)
        if access != os.O_RDONLY:
            self.written.add(text)
            if flags & os.O_TRUNC or flags & os.O_EXCL:
                self._made.add(text)
        if access != os.O_WRONLY and text not in self._looked_at:
            self._read(text)
        return None

    def _behind(self, text: str) -> str:
        """Where a path in the call's own folders leads: it may have made a link there."""
        folder = os.path.dirname(text)
        if folder not in self._plain and os.path.realpath(folder) == folder:
            self._plain.add(folder)
        return os.path.realpath(text) if folder not in self._plain or os.path.islink(text) else text

    def record_link(self, source: Any, *_: Any) -> None:
        """A hard link is the file itself, under a name that may belong to the call."""
        if (text := _absolute(source)) is not None and not text.startswith(self._passed):
            self._read(text)

    def record_listing(self, path: Any = None) -> None:
        """The files of a listed folder. Listings by libraries, which search for modules, are not the step's."""
        text = _absolute(path)
        if text is None or os.path.join(text, "").startswith(self._passed):
            return self.record_missed_path(path)
        asked = _asked()
        if asked.by == "step" and not asked.importing:
            self._read(os.path.join(text, ""))
        return None

    def record_program(self, program: Any, words: Any, cwd: Any = None, env: Any = None) -> None:
        """A program with its arguments. The tracer, if there is one, reports the programs that it starts."""
        given = words if isinstance(words, list | tuple) else [program]
        own = without_tracer(given)
        listed = [os.fsdecode(one) for one in islice(own, _WORDS)]
        for command in commands([os.fsdecode(program) if own is given else listed[0], *listed[1:]]):
            self._command(command, os.path.abspath(os.fsdecode(cwd or ".")), env, is_told=own is not given)

    def record_traced(self, tracer: Tracer) -> None:
        """Reads of child processes, reported as the step's own."""
        beside: set[str] = set()
        for one, at in tracer.traced_calls:
            if isinstance(one, OpenedFile):
                self._child_opened(one, at, tuple(beside))
                continue
            beside |= {one.path, *_belongs_to(one.path, self._root)}
            is_python = os.path.realpath(one.path) == os.path.realpath(sys.executable)
            is_own = one.path.startswith(self._own or ("\0",))
            if not (one.inner or is_own or is_python or os.path.basename(one.path) in PLUMBING):
                self._note("program", one.path, at)

    def _child_opened(self, one: OpenedFile, at: str, beside: tuple[str, ...]) -> None:
        if one.path.startswith(self._passed):
            return
        if one.makes:
            self._made.add(one.path)
        if not one.reads or one.makes:
            self.written.add(one.path)
        elif one.path not in self._made and not one.path.startswith(beside) and not _IS_SHARED.search(one.path):
            self._note("file", _source(one.path) or one.path, at)

    def line(self) -> str:
        """Where in the step's code we are."""
        return _asked().line

    def shell(self, text: Any) -> None:
        for command in shell_commands(os.fsdecode(text)):
            self._command(command, os.getcwd(), None)

    def variable(self, name: Any, frame: FrameType | None) -> None:
        """One that the step's own code asks for by its name; not where it copies all of them."""
        asking = _asking(frame)
        if asking is None or (id(asking), asking.f_lasti) == self._copied:
            return
        if (text := os.fsdecode(name)) not in OWN:
            self._note("environment", text, _line(asking))

    def all_variables(self, frame: FrameType | None) -> None:
        asking = _asking(frame)
        self._copied = (id(asking), asking.f_lasti) if asking is not None else None

    def record_missed_path(self, path: Any) -> None:
        """A relative path that exists in the project and not in the call's folder: the step finds nothing there."""
        if self._root is None or isinstance(path, int) or path is None:
            return
        text = os.fsdecode(path)
        if text and not os.path.isabs(text) and not os.path.exists(text) and os.path.exists(place := self._root / text):
            asked = _asked()
            if asked.by != "ct" and not asked.importing:
                self._note("missed", f"{place}/" if place.is_dir() else str(place), asked.line)

    def _read(self, text: str) -> None:
        if text in self._made or text in self._looked_at:
            return
        asked = _asked()
        if asked.by == "ct":
            return
        # Only once it is known that the step reads it: ct may have looked at the same file before.
        self._looked_at.add(text)
        source = _source(text) if asked.importing else None
        kind, what = ("file", text) if source is None else ("module", source)
        self._note(kind, what, asked.line)
        if asked.importing:
            _at_import.setdefault(self.step, {})[kind, what] = asked.line

    def _note(self, kind: str, what: str, at: str) -> None:
        if (kind, what) in self.found:
            return
        self.found[kind, what] = at
        if self._notes is not None and os.getpid() != self._pid:
            with open(self._notes / f"{_NOTES}{os.getpid()}", "a", encoding="utf-8") as file:
                file.write(json.dumps([kind, what, at]) + "\n")

    def _command(self, words: Sequence[str], cwd: str, env: Any, is_told: bool = False) -> None:
        """A program, and the files that its words name."""
        name = os.path.basename(words[0])
        if name not in PLUMBING and not is_told:
            self._program(words[0], cwd, env)
        for place in {os.path.normpath(os.path.join(cwd, part)) for word in words[1:] for part in _parts(word)}:
            if not place.startswith(self._passed) and os.path.isfile(place):
                self._read(place)

    def _program(self, name: str, cwd: str, env: Any) -> None:
        path = env.get("PATH") if isinstance(env, Mapping) else None
        found = os.path.normpath(os.path.join(cwd, name)) if "/" in name else shutil.which(name, path=path)
        if found is None or found.startswith(self._own or ("\0",)) or not os.path.isfile(found):
            return
        asked = _asked()
        is_python = os.path.realpath(found) == os.path.realpath(sys.executable)
        is_probe = asked.by == "library" and os.path.basename(name) in PROBES
        if not (is_python or is_probe or asked.by == "ct"):
            self._note("program", found, asked.line)


def _notes_in(folder: Path) -> list[Path]:
    return sorted(folder / name for name in os.listdir(folder) if name.startswith(_NOTES)) if folder.is_dir() else []


class _Now:
    """Whom the hook tells; None between calls."""

    seen: ObservedReads | None = None
    installed = False


_at_import: dict[str, dict[tuple[str, str], str]] = {}
"""By step: a module is imported once a process, and what it read then holds for every later call, too."""

_EVENTS: Mapping[str, Callable[..., None]] = {
    "open": ObservedReads.record_open,
    "os.link": ObservedReads.record_link,
    "os.listdir": ObservedReads.record_listing,
    "os.scandir": ObservedReads.record_listing,
    "pathlib.Path.glob": lambda seen, path, _pattern: seen.record_missed_path(path),
    "pathlib.Path.rglob": lambda seen, path, _pattern: seen.record_missed_path(path),
    # SQLite, the loader of compiled modules and dlopen open files in C, of which the event `open` knows nothing.
    "sqlite3.connect": ObservedReads.record_open,
    "import": lambda seen, _name, path, *_: seen.record_open(path),
    "ctypes.dlopen": lambda seen, path: seen.record_open(path if "/" in str(path) else None),
    "subprocess.Popen": ObservedReads.record_program,
    "os.exec": lambda seen, program, words, env: seen.record_program(program, words, None, env),
    "os.posix_spawn": lambda seen, program, words, env: seen.record_program(program, words, None, env),
    "os.spawn": lambda seen, _mode, program, words, env: seen.record_program(program, words, None, env),
    "os.system": ObservedReads.shell,
}


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    seen = _Now.seen
    if seen is None or (note := _EVENTS.get(event)) is None:
        return
    with suppress(Exception):  # the watcher's own trouble never becomes that of the step
        note(seen, *arguments)


def _install() -> None:
    if not _Now.installed:
        _Now.installed = True
        sys.addaudithook(_on_event)


_Environ: Any = type(os.environ)
_GET, _WALK = _Environ.__getitem__, _Environ.__iter__


def _patch(seen: ObservedReads | None) -> None:
    """Python has no audit event for variables: while a call runs, os.environ reports each access here."""

    def get(self: Any, name: Any) -> Any:
        if seen is not None:
            seen.variable(name, sys._getframe(1))
        return _GET(self, name)

    def walk(self: Any) -> Any:
        if seen is not None:
            seen.all_variables(sys._getframe(1))
        return _WALK(self)

    _Environ.__getitem__, _Environ.__iter__ = (_GET, _WALK) if seen is None else (get, walk)


@dataclass(frozen=True)
class _Asked:
    """The reader: the nearest code outside Python's library; the line of the step or its imports; whether it is
    importing a module."""

    by: Literal["step", "library", "ct"]
    line: str
    importing: bool


def _asked() -> _Asked:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    is_tracer = frame is not None and frame.f_code.co_filename == _TRACER
    by: Literal["step", "library", "ct"] | None = "ct" if is_tracer else None
    line, importing = "", False
    while frame is not None and (name := frame.f_code.co_filename) != _EXECUTE:
        if name.startswith("<frozen importlib"):
            importing = True
        elif not name.startswith(_PASSED):
            ours = not name.startswith(LIBRARY)
            by = by or ("step" if ours else "ct" if name.startswith(CT) else "library")
            line = line or (_line(frame) if ours else "")
        frame = frame.f_back
    return _Asked(by or ("ct" if frame is not None else "step"), line, importing)


def _asking(frame: FrameType | None) -> FrameType | None:
    """The frame that reads a variable, unless it is a library's. Code under `exec` belongs to its caller."""
    while frame is not None and frame.f_code.co_filename in _MAPPINGS:
        frame = frame.f_back
    first = frame
    while frame is not None and frame.f_code.co_filename[:1] == "<" and frame.f_code.co_filename[:7] != "<frozen":
        frame = frame.f_back
    return None if frame is None or frame.f_code.co_filename.startswith(("<", *LIBRARY)) else first


def _belongs_to(program: str, root: Path | None) -> Iterator[str]:
    """Whether a file belongs to a reported program, such as its libraries and tables; never inside the project."""
    folder, prefix = os.path.split(os.path.dirname(program))[::-1]
    if folder == "bin" and prefix != "/" and not (root and Path(program).is_relative_to(root)):
        yield os.path.join(prefix, "")


def _line(frame: FrameType) -> str:
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def _absolute(path: Any) -> str | None:
    if path is None or isinstance(path, int):
        return None
    text = os.fsdecode(path)
    return text if text.startswith("/") and "/." not in text else os.path.abspath(text)


def _parts(word: str) -> Iterator[str]:
    """`--table=x.tsv` may name `x.tsv`."""
    yield word
    if "=" in word:
        yield word.rpartition("=")[2]


def _source(path: str) -> str | None:
    """The file that a module is imported from; None if it is no module."""
    if path.endswith(".py"):
        return path
    folder, name = os.path.split(path)
    if name.endswith(".pyc") and os.path.basename(folder) == "__pycache__":
        return os.path.join(os.path.dirname(folder), name.partition(".")[0] + ".py")
    return None


def _is_declared(kind: str, what: str, known: AllowedReads) -> bool:
    if kind in ("environment", "missed"):
        return False
    return known.runs(what) if kind == "program" else known.has(what) or known.is_code(what)
