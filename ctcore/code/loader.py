"""Load a step file: it runs as a module of a package made of its folder, from its source, never from bytecode.

A folder is a package of its own, so that its files can share code (`from .shared import …`) and two folders never
clash. Neither needs to be installed. The bytes that run are the bytes that count as code.
"""

import errno
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from importlib.util import spec_from_file_location
from pathlib import Path
from traceback import extract_tb
from types import CodeType, ModuleType
from typing import Any

from ctcore.code.effects import is_own
from ctcore.code.environment import is_installed
from ctcore.code.module import module_of
from ctcore.code.sources import Sources
from ctcore.errors import CtError, StepError
from ctcore.step import Loading, Step, loading
from ctcore.store.digest import tagged_digest

_PACKAGES = "ct_steps_"


def load_file(path: Path, sources: Sources | None = None) -> list[Step]:
    """The steps that one file declares, in its order, including those that shared code declares for it."""
    place, read = path.resolve(), sources or Sources()
    found = _run(place, read)
    return [replace(step, sources=read) for step in found.steps]


def parse_ahead(path: Path) -> None:
    """Parse a step file without running it, for processes that are forked from this one: each would do it again, which
    takes longer than a short call."""
    # Whoever loads it says what is wrong with it.
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        place = path.resolve()
        source = place.read_bytes()
        _compiled(source, str(place))
        _ = module_of(source, str(place), False, False).bases


def package_of(folder: Path) -> str:
    """The name of the package that a step folder is."""
    return _PACKAGES + tagged_digest("ct.folder", str(folder).encode())[:12]


def file_of(module: str, folder: Path) -> Path | None:
    """The file of a module of the folder's package, by its name; None for others."""
    package, _, inner = module.partition(".")
    if package != package_of(folder) or not inner:
        return None
    place = folder.joinpath(*inner.split("."))
    init = place / "__init__.py"
    return init if init.is_file() else place.with_name(place.name + ".py")


def _run(path: Path, sources: Sources) -> Loading:
    source = sources.read(path)
    package = package_of(path.parent)
    parent = ModuleType(package)
    parent.__path__ = [str(path.parent)]
    # Siblings run anew with their file: one that is imported already has the code of before.
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        del sys.modules[name]
    sys.modules[package] = parent
    if not any(isinstance(one, _Finder) for one in sys.meta_path):
        # Before Python's own finders, which would use bytecode.
        sys.meta_path.insert(0, _Finder())
    _READ[package] = sources
    module = ModuleType(f"{package}.{path.stem}")
    module.__file__, module.__package__ = str(path), package
    # Before it runs: `dataclasses` and `pickle` look there for the module of a class.
    sys.modules[module.__name__] = module
    try:
        with loading(path) as found:
            exec(_compiled(source, str(path)), vars(module))
    except CtError:
        raise
    except SyntaxError as error:
        raise StepError(f"{error.filename or path} line {error.lineno or 1}: {error.msg}") from error
    except (Exception, SystemExit) as error:  # an edge: a person's file, which may raise anything
        lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path} line {lines[-1]}" if lines else str(path)
        raise StepError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    return found


_READ: dict[str, Sources] = {}


@lru_cache(maxsize=1024)
def _compiled(source: bytes, path: str) -> CodeType:
    # Otherwise the `from __future__` of this module would hold in the step's file (docs.python.org, compile).
    return compile(source, path, "exec", dont_inherit=True)


class _FromSource(SourceFileLoader):
    """Reads no bytecode: after two edits within a moment, it may belong to the first."""

    def path_stats(self, path: str) -> Any:
        # importlib neither reads nor writes bytecode of a file without stats (importlib, SourceLoader.get_code).
        raise OSError(errno.ENOENT, "no bytecode", path)


class _Finder(MetaPathFinder):
    """Finds the modules of step folders, and runs modules outside installed packages from their source."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package = fullname.partition(".")[0]
        if package not in _READ or not path:
            return None if is_own(package) else _from_source(fullname, path, target)
        sources, name = _READ[package], fullname.rpartition(".")[2]
        for folder in map(Path, path):
            # In Python's order: a package goes before a module of its name (importlib, FileFinder.find_spec).
            if sources.has(folder / name / "__init__.py"):
                return _spec(fullname, folder / name / "__init__.py", sources, [str(folder / name)])
            if sources.has(folder / f"{name}.py"):
                return _spec(fullname, folder / f"{name}.py", sources, None)
            # After the source, unlike in Python, which looks for extensions first: what lies beside its source runs as
            # that source, which can be followed.
            compiled = FileFinder(str(folder), (ExtensionFileLoader, EXTENSION_SUFFIXES)).find_spec(fullname)
            if compiled is not None:  # a compiled module, or a folder without __init__.py
                return compiled
        return None


def _from_source(fullname: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    found = PathFinder.find_spec(fullname, path, target)
    if found is not None and type(found.loader) is SourceFileLoader and not is_installed(Path(found.loader.path)):
        found.loader = _FromSource(fullname, found.loader.path)
    return found


def _spec(fullname: str, place: Path, sources: Sources, folders: list[str] | None) -> ModuleSpec | None:
    return spec_from_file_location(fullname, place, loader=_Loader(place, sources), submodule_search_locations=folders)


class _Loader(Loader):
    """Runs a module from its source as it was read. Steps of a shared file are those of the file that imports it; those
    of another file of steps are its own."""

    def __init__(self, place: Path, sources: Sources) -> None:
        self.place, self.sources = place, sources

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        compiled = _compiled(self.sources.read(self.place), str(self.place))
        if self._is_shared(module):
            exec(compiled, vars(module))
            return
        with loading(self.place):
            exec(compiled, vars(module))

    def _is_shared(self, module: ModuleType) -> bool:
        return self.place.name.startswith("_") or module.__name__.count(".") > 1

    def get_source(self, fullname: str) -> str:
        """For tracebacks."""
        return self.sources.read(self.place).decode()
