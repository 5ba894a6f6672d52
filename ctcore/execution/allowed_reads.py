"""What a call may read without a report: its declared files, the system, and installed packages."""

import os
import site
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

INDEXES = (".fai", ".gzi", ".bai", ".crai", ".csi", ".tbi", ".dict")


def folders(paths: Iterable[str | None]) -> tuple[str, ...]:
    """With their real places, each with a slash at its end: no beginning of a longer name."""
    found = {os.path.join(one, "") for path in paths if path for one in (os.path.abspath(path), os.path.realpath(path))}
    return tuple(sorted(found - {"/"}))


_NAME = f"python{sys.version_info[0]}.{sys.version_info[1]}"
_STDLIB = (os.path.dirname(os.__file__), os.path.join(sys.base_exec_prefix, "lib", _NAME))  # sysconfig is slow to load


def _installed() -> list[str | None]:
    """Python's environment; for the system's Python, only Python's own part of it."""
    paths = [*_STDLIB, os.path.join(sys.prefix, "bin"), os.path.join(sys.base_prefix, "include")]
    prefixes = [one for one in (sys.prefix, sys.base_prefix) if one not in ("/", "/usr", "/usr/local")]
    return [*paths, *prefixes, *site.getsitepackages(), site.getusersitepackages(), *_caches()]


def _caches() -> list[str]:
    """Of fonts, which packages write for themselves."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [os.environ.get("MPLCONFIGDIR", ""), *(os.path.join(cache, one) for one in ("matplotlib", "fontconfig"))]


CT = str(Path(__file__).parent.parent) + "/"
STDLIB = folders(_STDLIB)
LIBRARY = (*folders(_installed()), CT)
SYSTEM = (
    *LIBRARY,
    *("/proc/", "/sys/", "/etc/", "/bin/", "/sbin/", "/lib/", "/lib32/", "/lib64/", "/run/systemd/"),
    *("/dev/null", "/dev/std", "/dev/fd/", "/dev/urandom", "/dev/random", "/dev/zero", "/dev/tty", "/dev/pt"),
    *("/usr/bin/", "/usr/sbin/", "/usr/lib/", "/usr/lib32/", "/usr/lib64/", "/usr/libexec/", "/usr/include/"),
    *("/usr/share/", "/usr/local/lib/", "/usr/local/bin/", "/var/cache/fontconfig/"),
)


@dataclass(frozen=True)
class AllowedReads:
    """The declared reads of a call: `files` with their indexes, `places` and `folders` (raw files and references) with
    their content, `code` covered by the key, and the names of `tools`. `root` is the project; paths in it are shown
    relative to it."""

    root: Path
    files: Sequence[str]
    places: Sequence[str]
    code: Sequence[str] = ()
    tools: Sequence[str] = ()
    folders: Sequence[str] = ()

    def has(self, path: str) -> bool:
        """Whether a file is declared, or belongs to one that is: an index beside it, a file of a declared folder."""
        place = path.rstrip("/")
        return self._has(place) or self._has(os.path.realpath(place))

    def _has(self, place: str) -> bool:
        """Look a path up in a number of steps that does not grow with the inputs: a cohort's step has many."""
        if place in self._files or self._is_index(place):
            return True
        folder, name = os.path.split(place)
        beside = (os.path.join(folder, name[:at]) for at, sign in enumerate(name) if sign == ".")
        return any(one in self._files for one in beside) or any(one in self._places for one in _upwards(place))

    def is_code(self, source: str) -> bool:
        """Whether a module's file is covered by the step's key. So are its siblings, which ct loads itself."""
        return source in self._loaded or self.has(source)

    def runs(self, program: str) -> bool:
        return os.path.basename(program) in self.tools or self.has(program)

    def shown(self, path: str) -> str:
        """As people see it, and every database takes it: within the project, relative to it."""
        return os.fsencode(path.removeprefix(os.path.join(self.root, ""))).decode(errors="replace")

    def _is_index(self, path: str) -> bool:
        stem, suffix = os.path.splitext(path)
        return suffix in INDEXES and stem in self._stems

    @cached_property
    def _files(self) -> set[str]:
        return _real([*self.files, *self.code])

    @cached_property
    def _stems(self) -> set[str]:
        return {os.path.splitext(one)[0] for one in _real(self.files)}

    @cached_property
    def _places(self) -> set[str]:
        return _real([*self.files, *self.places, *self.folders])

    @cached_property
    def _loaded(self) -> set[str]:
        modules = [module for name, module in list(sys.modules.items()) if name.startswith("ct_steps_")]
        return _real(str(file) for module in modules if (file := getattr(module, "__file__", None)))


def _upwards(place: str) -> Iterator[str]:
    while len(place) > 1:
        yield place
        place = os.path.dirname(place)


def _real(paths: Iterable[str]) -> set[str]:
    return {one for path in paths for one in (path, os.path.realpath(path))}
