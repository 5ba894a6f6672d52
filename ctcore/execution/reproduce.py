"""Repeat calls and compare the bytes. The existing result stays, unless it is to be replaced."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex

from sqlalchemy import select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.row_numbers import next_number
from ctcore.catalog.tables import output, reproduction
from ctcore.execution.call import StepCall, StepResult
from ctcore.inputs.key import Hit
from ctcore.model.node import Node, name_of
from ctcore.project import Project
from ctcore.store.digest import canonical_json
from ctcore.store.store import PublishedArtifact, Store

FORGET_S = 7 * 24 * 3600
BESIDE = "again"  # in work/: private stores, gone when their run has ended


@dataclass(frozen=True)
class Reproduction:
    """A repeated call. `differs`: its files with other bytes, and new and missing ones; `instead`: the artifact that
    replaced the old one."""

    node: Node
    materialization: int
    data_version: str
    host: str
    differs: tuple[str, ...]
    instead: PublishedArtifact | None = None

    @property
    def words(self) -> str:
        if not self.differs:
            return "made again, the same bytes"
        what = "what is there was kept" if self.instead is None else "what was there is replaced"
        return f"made again, other bytes in {', '.join(self.differs)}; {what}"


@contextmanager
def repeated_calls(project: Project, calls: Sequence[StepCall]) -> Iterator[tuple[Store, list[StepCall]]]:
    """These calls, to be made in a private store."""
    _forget(project.work / BESIDE)
    store = Store(project.work / BESIDE / token_hex(8))
    store.ensure()
    try:
        yield store, [replace(call, store=str(store.root)) for call in calls]
    finally:
        _erase(store)


def compare_results(
    project: Project, store: Store, results: Sequence[StepResult], found: Mapping[str, Hit], replaces: bool = False
) -> Iterator[Reproduction | StepResult]:
    """The comparison of each call with the making that it repeats; a result if the call failed. `replaces`: other
    bytes replace the existing ones in the project's store."""
    before = _digests(project, [found[result.key].materialization for result in results])
    for result in results:
        node = (result.node[0], result.node[1])
        one = store.find(*node, result.key) if result.error is None else None
        if one is None:
            yield replace(result, error=result.error or "the step succeeded, but its outputs are gone")
            continue
        number = found[result.key].materialization
        host = store.sidecar(one.folder)["host"]
        differs = _differing(before.get(number, {}), one)
        instead = project.store.supersede(one, *node, result.key) if replaces and differs else None
        yield Reproduction(node, number, one.data_version, host, differs, instead)
        store.remove(one.folder)


def record(project: Project, made: Sequence[Reproduction], run_id: str | None) -> None:
    """Write down whether makings could be reproduced."""
    if not made:
        return
    with project.catalog.write() as writer:
        first = next_number(writer.connection, reproduction.c.id)
        rows = [
            {
                "id": first + offset,
                "materialization": one.materialization,
                "run_id": run_id,
                "host": one.host,
                "data_version": one.data_version,
                "differs": canonical_json(list(one.differs)).decode(),
            }
            for offset, one in enumerate(made)
        ]
        writer.insert(reproduction, [{**row, "at": writer.at, "actor": writer.actor} for row in rows])
        for one, row in zip(made, rows, strict=True):
            writer.event("reproduce", name_of(one.node), row)


def _digests(project: Project, numbers: Sequence[int]) -> dict[int, dict[str, str]]:
    with project.catalog.read() as connection:
        fields = (output.c.materialization, output.c.file, output.c.digest)
        found: dict[int, dict[str, str]] = {}
        for number, name, digest in connection.execute(
            select(*fields).where(in_keys(output.c.materialization, numbers))
        ):
            found.setdefault(number, {})[name] = digest
    return found


def _differing(before: Mapping[str, str], now: PublishedArtifact) -> tuple[str, ...]:
    digests = {name: entry.digest for name, entry in now.manifest.files.items()}
    return tuple(sorted(name for name in {*before, *digests} if before.get(name) != digests.get(name)))


def _forget(folder: Path) -> None:
    """Remove old remains of killed runs."""
    for place in folder.glob("*"):
        with suppress(FileNotFoundError):
            if place.stat().st_mtime < time.time() - FORGET_S:
                _erase(Store(place))


def _erase(store: Store) -> None:
    """Published folders are read-only."""
    for folder in store.root.rglob("*"):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o700)
    shutil.rmtree(store.root, ignore_errors=True)
    with suppress(OSError):  # another run may have its own there
        store.root.parent.rmdir()
