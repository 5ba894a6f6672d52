"""⑦ Who is inside the current results, through any number of steps: by the ledger, not by what is declared today."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
from sqlalchemy import Connection, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import edge, materialization
from ctcore.inputs import Inputs
from ctcore.mirror.mirror import Mirror
from ctcore.mirror.ranges import Flags
from ctcore.mirror.versions import Places, Short
from ctcore.reasons import Node
from ctcore.step import ENTITY_LEVELS

May = Callable[[str, str], Flags]
"""Of a step and a level: who may be in its results, by position; of the level cohort, which are its nodes."""


class Within:
    """One state of the catalog, and who may be inside what. What was asked once is remembered."""

    def __init__(self, connection: Callable[[], Connection], mirror: Mirror, inputs: Inputs, may: May) -> None:
        self.connection, self.mirror, self.inputs, self.may = connection, mirror, inputs, may
        self._clean: dict[str, Flags] = {}
        self._asked: set[str] = set()

    @classmethod
    def permitted(cls, connection: Callable[[], Connection], mirror: Mirror, inputs: Inputs, step: str) -> "Within":
        """Whoever consents to what a step is for may be inside what it is made from, however far away."""
        kin, cohorts = inputs.kin, np.ones(len(mirror.shape.cohorts), np.bool_)

        def may(_: str, level: str) -> Flags:
            return cohorts if level == "cohort" else kin.permits(step, level)

        return cls(connection, mirror, inputs, may)

    def clean(self, step: str) -> Flags:
        """Of which nodes nobody is inside the current result who may not be."""
        if step not in self._clean:
            self._asked.add(step)
            clean = self.may(step, self._level(step)).copy()
            for role, used in self.mirror.made[step].used.items():
                owner, place = used.pairs(np.arange(len(clean)))
                clean[owner[self._bad(step, role[1], used.source[place], used.version[place])]] = False
            self._clean[step] = clean
            self._asked.discard(step)
        return self._clean[step]

    def _bad(self, step: str, asset: str, source: Places, version: Short) -> Flags:
        """Which sources hold somebody who may not be in a result of the step. What is not registered any more, or was
        made by a step that is not there any more, may not be used either."""
        if asset == "reference":
            return np.zeros(len(source), np.bool_)
        level = self._level(asset)
        gone, at = source < 0, np.maximum(source, 0)
        if level not in (*ENTITY_LEVELS, "cohort") or not self.mirror.size(level):
            return gone
        bad = gone | ~self.may(step, level)[at] if level != "cohort" else gone
        if asset in self.mirror.made:
            now = self.mirror.made[asset].version[at]
            older = (now[:, 0] != version[:, 0]) | (now[:, 1] != version[:, 1])
            if asset in self._asked:  # it was once made the other way round
                older[:] = True
            if not older.all():
                bad |= ~older & ~self.clean(asset)[at]
            if older.any():
                bad |= older & np.isin(at, self.mirror.locate(asset, sorted(self.ever.get(asset, ()))))
        return bad

    @cached_property
    def ever(self) -> dict[str, set[str]]:
        """By step, the nodes that ever had an input of somebody who may not be in it.

        Along the ledger, and not along what is declared today: a step may have had other inputs, and inputs of steps
        that are not there any more. Until nothing more is found, as those of then may go round in today's order.
        """
        sources = self._sources
        found = {name: self._barred(name, self._level(name)) for name in (*sources, *self.inputs.graph.order)}
        asked: dict[tuple[str, str], int] = {}
        grown = True
        while grown:
            grown = False
            for name, up in ((name, up) for name, ups in sources.items() for up in ups):
                barred = found.get(up, set()) | self._barred(name, self._level(up))
                if len(barred) > asked.get((name, up), 0):
                    asked[name, up], before = len(barred), len(found[name])
                    found[name] |= self._made_from(name, up, barred)
                    grown |= len(found[name]) > before
        return found

    @property
    def _sources(self) -> dict[str, list[str]]:
        """Of what each step was ever made, but references; in the order of today's steps, those of before first."""
        made = select(materialization.c.asset, edge.c.asset.label("up")).join(
            edge, edge.c.materialization == materialization.c.id
        )
        found: dict[str, list[str]] = {}
        for name, up in self.connection().execute(made.where(edge.c.asset != "reference").distinct()):
            found.setdefault(name, []).append(up)
        order = list(self.inputs.graph.order)
        return dict(sorted(found.items(), key=lambda one: order.index(one[0]) if one[0] in order else -1))

    def _level(self, asset: str) -> str:
        return self.mirror.shape.levels.get(asset, asset)

    def _barred(self, step: str, level: str) -> set[str]:
        if level == "cohort":
            return set()
        if level not in ENTITY_LEVELS:  # a step that is not there any more: of whatever level it was
            return set().union(*(self._barred(step, one) for one in ENTITY_LEVELS))
        ids = self.mirror.entities[level].ids
        return {ids[at] for at in np.flatnonzero(~self.may(step, level)).tolist()}

    def _made_from(self, step: str, up: str, sources: set[str]) -> set[str]:
        rows = self.connection().execute(
            select(materialization.c.partition)
            .join(edge, edge.c.materialization == materialization.c.id)
            .where(materialization.c.asset == step, edge.c.asset == up)
            .where(in_keys(edge.c.partition, sources))
            .distinct()
        )
        return set(rows.scalars())

    def patients(self, node: Node) -> int:
        """How many patients are inside the current result of a node who may not be. None may be found where they are
        inside by way of something that was made anew since."""
        kin = self.inputs.kin
        inside = {node[0]: np.array(self.mirror.locate(node[0], [node[1]]), np.int64)}
        for asset in (*reversed(self.inputs.graph.order), *ENTITY_LEVELS):
            made = self.mirror.made.get(asset) if asset in inside else None
            for role, used in made.used.items() if made is not None else ():
                source = used.source[used.pairs(inside[asset])[1]]
                inside[role[1]] = np.union1d(inside.get(role[1], source[:0]), source[source >= 0])
        who = np.zeros(0, np.int64)
        for asset, places in inside.items():
            level = self._level(asset)
            if level in ENTITY_LEVELS:
                who = np.union1d(who, kin.above(level, "patient")[places[~self.may(node[0], level)[places]]])
        return len(who)
