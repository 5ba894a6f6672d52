"""Files of the step folder that a step reads or runs by their path: scripts, tables, models. Their bytes are code."""

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path

from ctcore.code.effects import Note
from ctcore.code.reachable import Walk
from ctcore.code.sources import files_below
from ctcore.errors import InputError, StepError
from ctcore.step import Step
from ctcore.store.digest import digest_files

# Beside a step that asks for its own place, a whole data set may lie; each command would read all of it.
MOST = 2000
MOST_BYTES = 256 << 20


def files_beside(step: Step, walk: Walk, named: Sequence[Path]) -> tuple[Mapping[str, str], list[Note]]:
    """Digests of files by path relative to the folder: the `named` files that `code=` declares, or all files beside
    a step that asks for its own path and declares none; and remarks on files that cannot be counted. Python files
    belong to the walk."""
    folder = step.source.parent
    if step.code:
        return side_file_digests(step, [path for path in named if path.suffix != ".py"]), []
    if not walk.reaches_all:
        return {}, []
    listed = [path for path in files_below(folder) if path.suffix != ".py"]
    if len(listed) > MOST or sum(path.stat().st_size for path in listed) > MOST_BYTES:
        way = f"the folder has {len(listed)} files; declare those that it uses with code=(…)"
        return {}, [Note(one.file, one.line, f"{one.what}; {way}") for one in (*walk.places, *walk.unseen)]
    return side_file_digests(step, listed), []


def declared_files(step: Step) -> list[Path]:
    """The files of the patterns of `code=`. StepError for one that leads to none."""
    folder, found = step.source.parent, list[Path]()
    for pattern in step.code:
        names = glob.glob(pattern, root_dir=folder, recursive=True, include_hidden=True)
        matches = sorted(folder / name for name in names if "__pycache__" not in Path(name).parts)
        matches = [path for path in matches if path.is_file()]
        if not matches:
            raise StepError(f"{step.source.name}: step {step.name}: code {pattern!r} leads to no file of {folder}")
        found += matches
    return list(dict.fromkeys(found))


def side_file_digests(step: Step, paths: list[Path]) -> dict[str, str]:
    """Digests by name relative to the step's folder. StepError for an unreadable file."""
    folder = step.source.parent
    try:
        return {path.relative_to(folder).as_posix(): one for path, one in sorted(digest_files(paths).items())}
    except InputError as error:
        said = f"a file beside step {step.name} is its code: {error}"
        way = "mend it, take it away, or name the files that the step uses with code=(…)"
        raise StepError(f"{step.source.name}: {said}; {way}") from None
