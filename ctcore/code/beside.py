"""③ Files of the step folder that a step reads or runs by their path: scripts, tables, models. Their bytes are code."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ctcore.code.plain import Note
from ctcore.code.sources import Sources, files_below
from ctcore.code.walk import Walk
from ctcore.digest import digest_files
from ctcore.errors import StepError
from ctcore.step import Step

MOST = 2000
MOST_BYTES = 256 << 20


def files_beside(step: Step, walk: Walk, sources: Sources) -> tuple[Mapping[str, str], list[Note]]:
    """Digests by path relative to the folder: the files that `code=` declares. Where the step declares none and asks
    where it lies, all files beside it; and what cannot be counted.
    """
    folder = step.source.parent
    if step.code:
        return digests(folder, declared(step)), []
    if not walk.places:
        return {}, []
    listed = [path for path in files_below(folder) if path.suffix != ".py" or _is_named(path, folder, walk.texts)]
    if len(listed) > MOST or sum(path.stat().st_size for path in listed) > MOST_BYTES:
        way = f"it has {len(listed)} files; declare those that it uses with code=(…)"
        return {}, [
            Note(one.file, one.line, f"asks where it lies, and the folder is large: {way}") for one in walk.places
        ]
    return digests(folder, listed), []


def declared(step: Step) -> list[Path]:
    """The files of the patterns of `code=`. StepError for one that leads to none."""
    folder, found = step.source.parent, list[Path]()
    for pattern in step.code:
        matches = sorted(path for path in folder.glob(pattern) if path.is_file() and "__pycache__" not in path.parts)
        if not matches:
            raise StepError(f"{step.source.name}: step {step.name}: code {pattern!r} leads to no file of {folder}")
        found += matches
    return list(dict.fromkeys(found))


def digests(folder: Path, paths: list[Path]) -> dict[str, str]:
    """By name relative to the folder."""
    return {path.relative_to(folder).as_posix(): one for path, one in sorted(digest_files(paths).items())}


def _is_named(path: Path, folder: Path, texts: frozenset[str] | set[str]) -> bool:
    """Whether a Python file may be meant as a script: a text of the code is its name, or may become it."""
    inside = path.relative_to(folder).as_posix()
    return any(inside.endswith(text.removeprefix("./")) for text in _scripts(texts))


def _scripts(texts: frozenset[str] | set[str]) -> Iterator[str]:
    """Ends of paths of Python files; of one that is put together or has wildcards, what is sure of its end."""
    for text in texts:
        if text.endswith("py"):
            yield re.split(r"[*?\]{}]", text)[-1]
