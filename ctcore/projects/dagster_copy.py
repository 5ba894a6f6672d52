"""The project's copy of the Dagster side: `ct init` copies it, so that people can change it; the core is installed."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import ctcore
from ctcore.errors import ProjectError
from ctcore.project import Project

_CORE = Path(ctcore.__file__).parent.parent
_IMPORT = re.compile(r"^[ \t]*from (\w[\w.]*) import (?:\(([^)]*)\)|([^\n]+))", re.M)
_DEFINITION = re.compile(r"^(?:async def |def |class )?(\w+)", re.M)


def refuse_other_copies(project: Project, command: str | None = None) -> None:
    """ProjectError where the copy is of another ct: it imports what this one lacks, or its launcher lacks `command`.

    Only what definitions.py and the launcher import is looked at: modules of an older ct may lie beside it, unused.
    """
    launcher = project.root / "ct_assets" / "launch.py"
    said = next(_problems(project.root, [project.root / "definitions.py", launcher]), None)
    if said is None and command and launcher.is_file() and command not in _names(launcher):
        said = f"{launcher} is of another ct: it has no command {command}"
    if said is not None:
        raise ProjectError(f"{said}; `ct init {project.root}` brings the project's copy up to date")


def _problems(root: Path, files: list[Path]) -> Iterator[str]:
    """What these files, and those of the project that they import, take from the core and is not in it."""
    seen = set[Path]()
    while files:
        path = files.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        for module, name in _imports(path):
            if module.partition(".")[0] != ctcore.__name__:
                files += [*_places(root, module), *_places(root, f"{module}.{name}")]
            elif not (places := _places(_CORE, module)):
                yield f"{path} is of another ct: it uses {module}, which this one has not"
            elif name not in _names(places[0]) and not _places(_CORE, f"{module}.{name}"):
                yield f"{path} is of another ct: it uses {name} of {module}, which this one has not"


def _imports(path: Path) -> Iterator[tuple[str, str]]:
    """Modules, and the names that are taken from them. Read as text: to parse all files takes a second."""
    for module, several, one in _IMPORT.findall(path.read_text(encoding="utf-8", errors="replace")):
        for name in re.sub("#.*", "", several or one).split(","):
            if words := name.split():
                yield module, words[0]


def _places(folder: Path, module: str) -> list[Path]:
    base = folder.joinpath(*module.split("."))
    return [place for place in (base.with_suffix(".py"), base / "__init__.py") if place.is_file()]


@cache
def _names(path: Path) -> set[str]:
    """What a module defines or takes from another one."""
    defined = _DEFINITION.findall(path.read_text(encoding="utf-8", errors="replace"))
    return {*defined, *(name for _, name in _imports(path))}
