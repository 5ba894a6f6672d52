"""Who is inside current results, through any number of steps: by the ledger, and not by today's declarations."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
from sqlalchemy import Connection, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.lost_inputs import lost_sources
from ctcore.catalog.tables import edge, materialization
from ctcore.inputs.resolve import Inputs
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.node import Node
from ctcore.snapshot.arrays import Flags
from ctcore.snapshot.snapshot import Snapshot
from ctcore.snapshot.versions import Places, Short

OF_LOST = " was made from what was lost with an earlier catalog, so who is in it is unknown"
"""Why a result is barred, where it is not known who bars it."""

May = Callable[[str, str], Flags]
"""Of a step and a level: who may be in its results, by position; of the level cohort, which are its nodes."""


class Contributors:
    """One state of the catalog, and who may be inside which results. Answers are kept."""

    def __init__(self, connection: Callable[[], Connection], snapshot: Snapshot, inputs: Inputs, may: May) -> None:
        self.connection, self.snapshot, self.inputs, self.may = connection, snapshot, inputs, may
        self._clean: dict[str, Flags] = {}
        self._asked: set[str] = set()

    @classmethod
    def permitted(
        cls, connection: Callable[[], Connection], snapshot: Snapshot, inputs: Inputs, step: str
    ) -> "Contributors":
        """People whose consent covers a step's use may be inside its inputs, however many steps lie between."""
        hierarchy, cohorts = inputs.hierarchy, np.ones(len(snapshot.shape.cohorts), np.bool_)

        def may(_: str, level: str) -> Flags:
            return cohorts if level == "cohort" else hierarchy.permits(step, level)

        return cls(connection, snapshot, inputs, may)

    def permitted_nodes(self, step: str) -> Flags:
        """Nodes whose current result contains nobody who may not be in it."""
        if step not in self._clean:
            self._asked.add(step)
            clean = self.may(step, self._level(step)).copy()
            for role, used in self.snapshot.made[step].used.items():
                owner, place = used.pairs(np.arange(len(clean)))
                clean[owner[self._bad(step, role[1], used.source[place], used.version[place])]] = False
            self._clean[step] = clean
            self._asked.discard(step)
        return self._clean[step]

    def _bad(self, step: str, asset: str, source: Places, version: Short) -> Flags:
        """Sources with somebody inside who may not be in a result of the step. Sources that are no longer
        registered, or whose step or making is gone, may not be used either: nobody can tell who is inside."""
        if asset == "reference":
            return np.zeros(len(source), np.bool_)
        level = self._level(asset)
        # -1 is a source that is gone, and numpy would take the last entity for it: the first is asked, and `gone`
        # decides.
        gone, at = source < 0, np.maximum(source, 0)
        if level not in (*ENTITY_LEVELS, "cohort") or not self.snapshot.size(level):
            return gone
        bad = gone | ~self.may(step, level)[at] if level != "cohort" else gone
        if asset in self.snapshot.made:
            now = self.snapshot.made[asset].version[at]
            older = (now[:, 0] != version[:, 0]) | (now[:, 1] != version[:, 1])
            if asset in self._asked:  # it was once made the other way round
                older[:] = True
            if not older.all():
                bad |= ~older & ~self.permitted_nodes(asset)[at]
            if older.any():
                bad |= older & np.isin(at, self.snapshot.locate(asset, sorted(self.ever.get(asset, ()))))
        return bad

    @cached_property
    def ever(self) -> dict[str, set[str]]:
        """By step, the nodes that ever had an input of somebody who may not be in it, or an input that is lost.

        It follows the ledger, because a step may have had other inputs, also of steps that are gone.
        """
        listed = (*self._sources, *self.inputs.graph.order)
        return self._spread(
            {name: self._barred(name, self._level(name)) | self._lost.get(name, set()) for name in listed}
        )

    @cached_property
    def of_lost(self) -> dict[str, set[str]]:
        """By step, the nodes that were ever made, at any distance, from what was lost with an earlier catalog."""
        return self._spread(self._lost, bars=False) if self._lost else {}

    @cached_property
    def _lost(self) -> dict[str, set[str]]:
        return lost_sources(self.connection())

    def _spread(self, first: Mapping[str, set[str]], bars: bool = True) -> dict[str, set[str]]:
        """These nodes, and every node that was ever made from them. `bars`: and from entities that bar it.

        It repeats until nothing new is found: the old edges may run against today's order of steps.
        """
        found: dict[str, set[str]] = defaultdict(set, {name: set(some) for name, some in first.items()})
        asked: dict[tuple[str, str], int] = {}
        grown = True
        while grown:
            grown = False
            for name, up in ((name, up) for name, ups in self._sources.items() for up in ups):
                barred = found[up] | (self._barred(name, self._level(up)) if bars else set())
                if len(barred) > asked.get((name, up), 0):
                    asked[name, up], before = len(barred), len(found[name])
                    found[name] |= self._made_from(name, up, barred)
                    grown |= len(found[name]) > before
        return found

    @cached_property
    def _sources(self) -> dict[str, list[str]]:
        """All inputs that each step ever had, except references; in the order of today's steps, former steps first."""
        made = select(materialization.c.asset, edge.c.asset.label("up")).join(
            edge, edge.c.materialization == materialization.c.id
        )
        found: dict[str, list[str]] = {}
        for name, up in self.connection().execute(made.where(edge.c.asset != "reference").distinct()):
            found.setdefault(name, []).append(up)
        order = list(self.inputs.graph.order)
        return dict(sorted(found.items(), key=lambda one: order.index(one[0]) if one[0] in order else -1))

    def _level(self, asset: str) -> str:
        return self.snapshot.shape.levels.get(asset, asset)

    def _barred(self, step: str, level: str) -> set[str]:
        if level == "cohort":
            return set()
        if level not in ENTITY_LEVELS:  # a step that is not there any more: of whatever level it was
            return set().union(*(self._barred(step, one) for one in ENTITY_LEVELS))
        ids = self.snapshot.entities[level].ids
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
        """The number of patients inside a node's current result who may not be in it. It can be 0 if they are inside
        an input that was made anew since."""
        hierarchy = self.inputs.hierarchy
        inside = {node[0]: np.array(self.snapshot.locate(node[0], [node[1]]), np.int64)}
        for asset in (*reversed(self.inputs.graph.order), *ENTITY_LEVELS):
            made = self.snapshot.made.get(asset) if asset in inside else None
            for role, used in made.used.items() if made is not None else ():
                source = used.source[used.pairs(inside[asset])[1]]
                inside[role[1]] = np.union1d(inside.get(role[1], source[:0]), source[source >= 0])
        who = np.zeros(0, np.int64)
        for asset, places in inside.items():
            level = self._level(asset)
            if level in ENTITY_LEVELS:
                who = np.union1d(who, hierarchy.ancestors(level, "patient")[places[~self.may(node[0], level)[places]]])
        return len(who)
