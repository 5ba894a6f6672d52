"""The libraries that a step's code needs, by version, and modules that nobody installed."""

import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache, lru_cache
from importlib import metadata, util
from pathlib import Path

from ctcore.code.sources import files_below

_OWN = Path(os.__file__).parent


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """The version of Python, and of the distributions that provide these modules."""
    python, places = ".".join(map(str, sys.version_info[:2])), _places()
    return {"python": python, **{name: version for name in sorted(libraries) if (version := _version(name, places))}}


def are_current(found: Mapping[str, str]) -> bool:
    """Whether `versions` would find the same now."""
    return versions(found.keys() - {"python"}) == found


def _places() -> tuple[tuple[str, int], ...]:
    """The folders of packages, with their times: each is another one when something was installed there or removed."""
    found = []
    for place in sys.path:
        with suppress(OSError):
            found.append((place, os.stat(place or os.curdir).st_mtime_ns))
    return tuple(found)


@lru_cache(maxsize=1024)
def _version(module: str, _places: tuple[tuple[str, int], ...]) -> str:
    """A code server lives for weeks, and its sensor has to see what was installed meanwhile."""
    try:
        # First by its name, as most packages have that of their module: `packages_distributions` reads the records of
        # all that is installed.
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        names = metadata.packages_distributions().get(module, ())
        return " ".join(f"{name} {metadata.version(name)}" for name in sorted(set(names))) or "not installed"


@cache
def local_files(name: str) -> Mapping[str, Path] | None:
    """The files of a module outside installed packages (beside ct.toml, in PYTHONPATH, an editable install), by
    their relative names. None for installed and for missing modules."""
    try:
        spec = util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or ())
    if not places and not (spec.has_location and spec.origin):
        return None
    roots = [Path(place) for place in places] or [Path(spec.origin or "")]
    if all(map(is_installed, roots)):
        return None
    if not places:
        return {roots[0].name: roots[0]}
    wanted = (".py", ".so")
    return {
        f"{name}/{path.relative_to(root).as_posix()}": path
        for root in roots
        for path in files_below(root)
        if path.suffix in wanted
    }


def is_installed(path: Path) -> bool:
    """Whether it is of Python's own library, or of an installed package."""
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    return path.is_relative_to(_OWN)
