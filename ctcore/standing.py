"""⑦ What this process knows of a catalog: its mirror and the last evaluation. Everybody who asks, asks here.

The state that is handed out belongs to the transaction of the given connection and is never changed afterwards.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection

from ctcore.inputs import Inputs
from ctcore.judge import Evaluated, evaluated
from ctcore.mirror import saved
from ctcore.mirror.mirror import Mirror, Shape, Touched, follow, load, load_waivers
from ctcore.project import Project

KEPT = 4  # catalogs; a process has to do with one, a test process with many


@dataclass
class Standing:
    """One catalog. `declared` is what the inputs follow from besides the mirror: steps and cohorts."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    mirror: Mirror | None = None
    inputs: Inputs | None = None
    declared: Any = None
    judged: Evaluated | None = None
    pending: Touched = field(default_factory=Touched)

    def apart(self) -> "Standing":
        """The same, for a state of the catalog that is taken back: what is learned there stays there."""
        with self.lock:
            pending = Touched()
            pending.add(self.pending)
            return Standing(threading.RLock(), self.mirror, self.inputs, self.declared, self.judged, pending)

    def catch_up(self, project: Project, connection: Connection) -> tuple[Mirror, Inputs]:
        """The catalog as this transaction sees it, and the nodes and inputs of today."""
        shape, declared = Shape.of(project.steps, project.settings), _declared(project)
        mirror, touched = self._mirror(project, connection, shape)
        if self.inputs is None or touched.all or self.declared != declared:
            touched.all = True
            inputs = Inputs(project.steps, project.settings, mirror)
        else:
            inputs = self.inputs
        self.mirror, self.inputs, self.declared = mirror, inputs, declared
        self.pending.add(touched)
        return mirror, inputs

    def evaluate(self, project: Project, connection: Connection) -> Evaluated:
        mirror, inputs = self.catch_up(project, connection)
        self.judged = evaluated(project, connection, mirror, inputs, self.judged, self.pending)
        self.pending = Touched()
        return self.judged

    def _mirror(self, project: Project, connection: Connection, shape: Shape) -> tuple[Mirror, Touched]:
        if self.mirror is not None and self.mirror.shape == shape:
            return follow(connection, self.mirror)
        kept = saved.read(project, shape)
        if kept is not None:
            mirror, _ = follow(connection, kept)
            mirror = replace(mirror, waivers=load_waivers(connection, mirror))
        else:
            mirror = load(connection, shape)
        if kept is None or mirror.seq - kept.seq > saved.WORTH_IT:
            saved.write(project, mirror)
        return mirror, Touched(all=True)


_known: OrderedDict[tuple[str, str], Standing] = OrderedDict()
_lock = threading.Lock()


def standing(project: Project) -> Standing:
    """That of a project's catalog in this process."""
    name = (project.catalog.place, project.id)
    with _lock:
        found = _known.pop(name, None) or Standing()
        _known[name] = found
        while len(_known) > KEPT:
            _known.popitem(last=False)
        return found


def forget() -> None:
    """Ask all catalogs anew, as a new process does."""
    with _lock:
        _known.clear()


def today(project: Project, connection: Connection) -> tuple[Mirror, Inputs]:
    """The catalog as this transaction sees it, in columns, and what every node would be made from."""
    here = standing(project)
    with here.lock:
        return here.catch_up(project, connection)


def _declared(project: Project) -> Any:
    steps = tuple(
        (one.name, one.level, tuple(one.inputs.items()), one.files, one.references, one.columns, one.role)
        for one in project.steps
    )
    return steps, tuple((name, tuple(cohort.where.items())) for name, cohort in project.settings.cohorts.items())
