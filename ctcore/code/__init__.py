"""A step's code: the digest of everything in the step folder that its function can reach.

It is sound first: code that cannot be followed counts whole, or is reported. It is narrow second: comments, unread
docstrings, layout, the order of plain definitions, unused names, resources and contracts do not count. Libraries and
tools count as environment, by their versions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ctcore.code.closures import Closure, is_plain
from ctcore.code.effects import Note
from ctcore.code.environment import versions
from ctcore.code.loader import file_of
from ctcore.code.reachable import Walk
from ctcore.code.side_files import declared_files, files_beside
from ctcore.code.sources import Sources, files_below
from ctcore.errors import StepError
from ctcore.step import Step
from ctcore.store.digest import digest_value

TAG = "ct.code.v2"


@dataclass(frozen=True)
class Code:
    """A step's code. `content` is everything under the digest, as JSON: declaration, parts of the source, values,
    files.

    `environment`: the versions of its imports, including `python`. `whole`: the files that count whole, and why.
    `unfollowed`: code that no digest can cover.
    """

    content: Mapping[str, Any]
    environment: Mapping[str, str]
    whole: Sequence[Note]
    unfollowed: Sequence[Note]

    @cached_property
    def digest(self) -> str:
        return digest_value(TAG, self.content)


def code_of(step: Step) -> Code:
    """Follow everything that the step's function uses, through the files that it was loaded from.

    What is made elsewhere has no code that ct could follow: its declaration counts.
    """
    if step.made_elsewhere:
        return Code({"declaration": _declaration(step), "source": []}, {}, (), ())
    sources = step.sources or Sources()
    try:
        named = declared_files(step)
        if step.code:
            sources.note_others()
        walk, values, found = _walked(step, Walk(step.source.parent, sources), named)
        # Only a walk finds out that docstrings are read, or that a file may be run as a script: then all is read once
        # more.
        script = walk.reaches_all or any(path.suffix == ".py" for path in named)
        if walk.reads_docs or script:
            walk, values, found = _walked(step, Walk(step.source.parent, sources, walk.reads_docs, script), named)
    except RecursionError as error:
        raise StepError(f"{step.source}: what step {step.name} uses is nested too deeply to be read") from error
    content: dict[str, Any] = {"declaration": _declaration(step), "source": _listed(walk)}
    if len(walk.whole) > 1:
        content["order"] = list(walk.whole)  # in which they run
    if values is not None:
        content["values"] = values
    if walk.reaches_all:
        sources.note_others()
    beside, missed = files_beside(step, walk, named)
    if beside:
        content["files"] = beside
    label = step.source.name
    opaque = [Note(label, 0, f"{one}, a value without comparable content") for one in found.opaque]
    unfollowed = [*walk.lost, *walk.unseen, *missed, *opaque]
    return Code(content, versions(walk.libraries), tuple(walk.whole.values()), tuple(dict.fromkeys(unfollowed)))


def _declaration(step: Step) -> dict[str, Any]:
    return {
        "level": step.level,
        "inputs": dict(step.inputs),
        "files": list(step.files),
        "references": list(step.references),
        "columns": list(step.columns),
        "outputs": {name: output.file for name, output in step.outputs.items()},
        **({} if step.role is None else {"role": step.role}),
        **({"made_elsewhere": True} if step.made_elsewhere else {}),
    }


def _listed(walk: Walk) -> list[list[str]]:
    return [[file, name, text] for (file, name), text in sorted(walk.parts.items())]


def _walked(step: Step, walk: Walk, named: Sequence[Path]) -> tuple[Walk, Any, Closure]:
    values, found = None, Closure(str(step.source.parent))
    module, name = walk.load(step.source), getattr(step.function, "__name__", "")
    if is_plain(step.function) and name in module.bound and not module.effects:
        walk.follow(step.source, name)
    else:
        walk.count_whole(step.source, 0, f"{step.name} is made by code")
        values = found.value(step.function, step.name)
    for code in found.codes:
        _follow_place(walk, Path(code.co_filename), code.co_firstlineno, code.co_name)
    for kind in (*found.classes, *([step.params] if step.params is not None else [])):
        _follow_class(walk, kind, _parameters(kind) if kind is step.params else frozenset())
    for path in named:
        if path.suffix == ".py":
            walk.count_whole(path, 0, "it is declared with code=")
    if walk.unseen or (walk.places and not step.code):
        walk.sources.note_others()
        for path in files_below(walk.folder):
            if path.suffix == ".py":
                walk.count_whole(path, 0, "it may be reached by a name or a path that does not stand in the code")
    return walk, values, found


def _parameters(kind: type) -> frozenset[str]:
    """Fields whose defaults are parameters."""
    return frozenset(one.name for one in fields(kind)) if is_dataclass(kind) else frozenset()


def _follow_place(walk: Walk, path: Path, line: int, name: str) -> None:
    """A function that was made somewhere: the statement that it stands in."""
    if walk.folder not in path.parents:
        if "site-packages" not in path.parts:
            walk.lost.append(Note(path.name, line, f"{name} is not of the step folder"))
        return
    walk.load(path)
    if path.relative_to(walk.folder).as_posix() in walk.whole:
        return
    for bound, (first, last) in walk.load(path).lines.items():
        if first <= line <= last:
            walk.follow(path, bound)
            return
    walk.count_whole(path, line, f"{name} is made here")


def _follow_class(walk: Walk, kind: type, parameters: frozenset[str]) -> None:
    path = file_of(kind.__module__, walk.folder)
    if path is None:
        return
    name, _, inner = kind.__qualname__.partition(".")
    if inner or name not in walk.load(path).bound:
        walk.count_whole(path, 0, f"class {kind.__qualname__} is made by code")
    else:
        walk.follow(path, name, parameters)
