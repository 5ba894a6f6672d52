"""This process's view of a catalog: its snapshot, and today's inputs. All callers share it.

A state belongs to the transaction of the given connection and never changes afterwards.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection

from ctcore.inputs.resolve import Inputs
from ctcore.project import Project
from ctcore.snapshot import disk_cache
from ctcore.snapshot.snapshot import CatalogChanges, Snapshot, SnapshotShape, follow, load, load_waivers

KEPT = 4  # catalogs; a process has to do with one, a test process with many


@dataclass(eq=False)
class KnownCatalog:
    """One catalog. `declared` are the steps and cohorts from which the inputs follow, besides the snapshot."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    snapshot: Snapshot | None = None
    inputs: Inputs | None = None
    declared: Any = None
    pending: CatalogChanges = field(default_factory=CatalogChanges)

    def for_rollback(self) -> "KnownCatalog":
        """A copy for a transaction that is rolled back: its findings stay there."""
        with self.lock:
            pending = CatalogChanges()
            pending.add(self.pending)
            return KnownCatalog(threading.RLock(), self.snapshot, self.inputs, self.declared, pending)

    def catch_up(self, project: Project, connection: Connection) -> tuple[Snapshot, Inputs]:
        """The catalog as this transaction sees it, and the nodes and inputs of today."""
        shape, declared = SnapshotShape.of(project.steps, project.settings), _declared(project)
        snapshot, touched = self._mirror(project, connection, shape)
        if self.inputs is None or touched.all or self.declared != declared:
            touched.all = True
            inputs = Inputs(project.steps, project.settings, snapshot)
        else:
            inputs = self.inputs
        self.snapshot, self.inputs, self.declared = snapshot, inputs, declared
        # Gathered until an evaluation takes them: others may follow the events in between, and must not take them away.
        self.pending.add(touched)
        return snapshot, inputs

    def changes(self) -> CatalogChanges:
        """The changes since the last call."""
        pending, self.pending = self.pending, CatalogChanges()
        return pending

    def _mirror(
        self, project: Project, connection: Connection, shape: SnapshotShape
    ) -> tuple[Snapshot, CatalogChanges]:
        if self.snapshot is not None and self.snapshot.shape == shape:
            return follow(connection, self.snapshot)
        kept = disk_cache.read(project, shape)
        if kept is not None:
            snapshot, touched = follow(connection, kept)
            snapshot = replace(snapshot, waivers=load_waivers(connection, snapshot))
        else:
            snapshot, touched = load(connection, shape), CatalogChanges(all=True)
        # After a word about people, or the end of a consent, everybody is read again: each later process would do so.
        if touched.all or snapshot.seq - (kept.seq if kept else 0) > disk_cache.WORTH_IT:
            disk_cache.write(project, snapshot)
        return snapshot, CatalogChanges(all=True)


_known: OrderedDict[tuple[str, str], KnownCatalog] = OrderedDict()
_lock = threading.Lock()


def known_catalog(project: Project) -> KnownCatalog:
    """The view of a project's catalog in this process."""
    name = (project.catalog.place, project.id)
    with _lock:
        found = _known.pop(name, None) or KnownCatalog()
        _known[name] = found
        while len(_known) > KEPT:
            _known.popitem(last=False)
        return found


def forget() -> None:
    """Ask all catalogs anew, as a new process does."""
    with _lock:
        _known.clear()


def current_inputs(project: Project, connection: Connection) -> tuple[Snapshot, Inputs]:
    """The catalog in columns, as this transaction sees it, and the inputs of every node."""
    here = known_catalog(project)
    with here.lock:
        return here.catch_up(project, connection)


def _declared(project: Project) -> Any:
    steps = tuple(
        (one.name, one.level, tuple(one.inputs.items()), one.files, one.references, one.columns, one.role)
        for one in project.steps
    )
    return steps, tuple((name, cohort.version) for name, cohort in project.settings.cohorts.items())
