"""A snapshot on disk, so that the next process need not read the whole catalog: its arrays in one mapped file.

It may be deleted at any time. A file of another catalog, other steps or another ct is not used.
"""

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctcore.project import Project
from ctcore.snapshot.artifacts import StepArtifacts, UsedInputs
from ctcore.snapshot.entities import Entities
from ctcore.snapshot.snapshot import Snapshot, SnapshotShape
from ctcore.util import json_text

# Another one wherever arrays or head mean something else: a file of another number is not read (`_of`).
FORMAT = 6
ALIGNED = 64  # bytes, a cache line: numpy may read an unaligned array, but copies it for most operations
WORTH_IT = 2_000  # events that a next process would have to follow


def read(project: Project, shape: SnapshotShape) -> Snapshot | None:
    """The saved snapshot, where it is of these steps and of a catalog of this name; without waivers."""
    folder = project.work / "mirror"
    try:
        head = json_text.loads((folder / "head.json").read_bytes())
        if head["of"] != _of(project, shape):
            return None
        return _restored(_Arrays(folder / head["file"], head["arrays"]), head, shape)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(project: Project, snapshot: Snapshot) -> None:
    """Save it beside the older one, then point to it. Where that cannot be, the next process reads the catalog."""
    root = project.work / "mirror"
    name = f"{snapshot.seq}-{os.getpid()}.arrays"
    with suppress(OSError):
        root.mkdir(parents=True, exist_ok=True)
        arrays, head = _parts(snapshot)
        listed = _save(root / name, arrays)
        text = json.dumps({"of": _of(project, snapshot.shape), "file": name, "arrays": listed, **head})
        (root / f".{name}.json").write_text(text)
        # The head last, by one rename: a reader finds the old file with its old head, or the new one with the new.
        os.replace(root / f".{name}.json", root / "head.json")
        for other in root.iterdir():
            if other.name not in ("head.json", name):  # who has mapped it keeps it
                other.unlink(missing_ok=True)


def _save(path: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """One after the other; returns type, shape and place of each."""
    listed: dict[str, Any] = {}
    at = 0
    with path.open("wb") as stream:
        for name, array in arrays.items():
            whole = np.ascontiguousarray(array)
            listed[name] = (whole.dtype.str, whole.shape, at)
            stream.write(whole.tobytes())
            at += whole.nbytes
            at += stream.write(bytes(-at % ALIGNED))
    return listed


class _Arrays:
    """The arrays of a file, read where they are looked at."""

    def __init__(self, path: Path, listed: Mapping[str, Any]) -> None:
        self.bytes: NDArray[np.uint8] = np.zeros(0, np.uint8)
        # mmap(2) refuses a length of 0. A file that is deleted while it is mapped stays readable until it is unmapped
        # (unlink(2)); it is never shortened, which would end this process with SIGBUS.
        if path.stat().st_size:
            self.bytes = np.asarray(np.memmap(path, np.uint8, "r"))
        self.listed = listed

    def __call__(self, name: str) -> Any:
        kind, shape, at = self.listed[name]
        size = np.dtype(kind).itemsize * math.prod(shape)
        if at + size > len(self.bytes):
            raise ValueError("the file is shorter than it was")
        return self.bytes[at : at + size].view(kind).reshape(shape)


def _of(project: Project, shape: SnapshotShape) -> list[Any]:
    columns = {level: list(names) for level, names in shape.columns.names.items()}
    compared = {level: list(names) for level, names in shape.columns.compared.items()}
    return [
        FORMAT,
        project.id,
        project.catalog.place,
        dict(shape.levels),
        columns,
        compared,
        list(shape.cohorts),
        dict(shape.uses),
        shape.required,
    ]


def _parts(snapshot: Snapshot) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays by file name, and the rest as JSON."""
    arrays: dict[str, Any] = {}
    head: dict[str, Any] = {"seq": snapshot.seq, "digest": snapshot.digest, "references": dict(snapshot.references)}
    head["days"] = list(snapshot.days)
    head["damaged"] = {step: {str(at): said for at, said in some.items()} for step, some in snapshot.damaged.items()}
    head["failed"] = {step: {str(at): key for at, key in some.items()} for step, some in snapshot.failed.items()}
    head["entities"], head["used"] = {}, []
    for level, some in snapshot.entities.items():
        arrays[f"{level}.seq"], arrays[f"{level}.parents"] = some.seq, some.parents
        arrays[f"{level}.barred"], arrays[f"{level}.withheld"] = some.barred, some.withheld
        # A line end separates them, because no ID may have one.
        arrays[f"{level}.ids"] = np.frombuffer("\n".join(some.ids).encode(), np.uint8)
        for what, columns in (("columns", some.columns), ("files", some.files)):
            for number, (_, column) in enumerate(columns.items()):
                arrays[f"{level}.{what}.{number}"] = column
        for what, flags in (("barred_for", some.barred_for), ("nonconsenting", some.nonconsenting)):
            arrays |= {f"{level}.{what}.{number}": one for number, one in enumerate(flags.values())}
        for number, column in enumerate(some.numbers.values()):
            arrays[f"{level}.numbers.{number}"] = column
        names = {"columns": list(some.columns), "files": list(some.files), "barred_for": list(some.barred_for)}
        names |= {"nonconsenting": list(some.nonconsenting), "numbers": list(some.numbers)}
        head["entities"][level] = names
    for number, (step, made) in enumerate(snapshot.made.items()):
        arrays[f"{number}.materialization"], arrays[f"{number}.recipe"] = made.materialization, made.recipe
        arrays[f"{number}.version"] = made.version
        for role, used in made.used.items():
            place, small = len(head["used"]), used.compact()
            arrays |= {f"{place}.start": small.start, f"{place}.count": small.count}
            arrays |= {f"{place}.source": small.source, f"{place}.used": small.version}
            head["used"].append([step, list(role), [list(node) for node in small.unregistered]])
    return arrays, head


def _restored(array: _Arrays, head: dict[str, Any], shape: SnapshotShape) -> Snapshot:
    entities = {}
    for level, names in head["entities"].items():
        text = array(f"{level}.ids").tobytes().decode()
        columns = {name: array(f"{level}.columns.{at}") for at, name in enumerate(names["columns"])}
        files = {name: array(f"{level}.files.{at}") for at, name in enumerate(names["files"])}
        ids = text.split("\n") if text else []
        bars, nonconsenting = (
            {name: array(f"{level}.{what}.{at}") for at, name in enumerate(names[what])}
            for what in ("barred_for", "nonconsenting")
        )
        seq, parents, barred, withheld = (array(f"{level}.{part}") for part in ("seq", "parents", "barred", "withheld"))
        numbers = {name: array(f"{level}.numbers.{at}") for at, name in enumerate(names["numbers"])}
        by_step = bars, withheld, nonconsenting
        entities[level] = Entities(level, seq, ids, parents, columns, files, barred, *by_step, numbers)
    used: dict[str, dict[Any, UsedInputs]] = {}
    for place, (step, role, strangers) in enumerate(head["used"]):
        start, count, source, version = (array(f"{place}.{part}") for part in ("start", "count", "source", "used"))
        nodes = tuple((asset, partition) for asset, partition in strangers)
        used.setdefault(step, {})[(role[0], role[1])] = UsedInputs(start, count, source, version, nodes)
    made = {}
    for number, step in enumerate(shape.levels):
        numbers, recipes, versions = (array(f"{number}.{part}") for part in ("materialization", "recipe", "version"))
        made[step] = StepArtifacts(numbers, recipes, versions, used.get(step, {}))
    damaged = {
        step: {int(at): tuple((file, said) for file, said in some) for at, some in found.items()}
        for step, found in head["damaged"].items()
    }
    failed = {step: {int(at): key for at, key in some.items()} for step, some in head["failed"].items()}
    days = (head["days"][0], head["days"][1])
    return Snapshot(shape, head["seq"], head["digest"], days, entities, made, head["references"], damaged, failed, {})
