"""Who is inside makings of any time, by their own lineage."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache, cached_property

from ctcore.inputs.contributors import May
from ctcore.inputs.resolve import Inputs
from ctcore.lineage.walk import Lineage, Making
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.snapshot.arrays import Flags
from ctcore.snapshot.snapshot import Snapshot


class PastContributors:
    """Who is inside makings of any time, by their own lineage and not by today's."""

    def __init__(self, lineage: Lineage, snapshot: Snapshot, inputs: Inputs) -> None:
        self.lineage, self.snapshot, self.hierarchy = lineage, snapshot, inputs.hierarchy

    @cached_property
    def dirty(self) -> set[int]:
        """Makings with somebody inside who may not be used today for the step that took them."""
        return self._grown(self.hierarchy.usable_for)

    def nonconsenting_makings(self, step: str) -> set[int]:
        """Makings with somebody inside, at any distance, whose consent does not cover the step's use."""
        return self._grown(lambda _, level: self.permits(step, level))

    def is_limited(self, step: str) -> bool:
        """Whether a consent may be too limited for a step. The use of a former step is unknown."""
        return (
            step in self.hierarchy.limited_steps
            if step in self.snapshot.shape.uses
            else bool(self.hierarchy.limited_steps)
        )

    def permits(self, step: str, level: str) -> Flags:
        """Entities whose consent covers a step. No limited consent covers a step that is gone."""
        found = self.hierarchy.permits(step, level)
        for one in () if step in self.snapshot.shape.uses else sorted(self.hierarchy.limited_steps):
            found = found & self.hierarchy.permits(one, level)
        return found

    def patients(self, making: Making) -> int:
        """The number of patients inside a making whose consent does not cover its step's use."""
        who: set[int] = set()
        may = {level: self.permits(making.asset, level).tolist() for level in ENTITY_LEVELS}
        for number in self.lineage.reached([making.id]):
            who |= {
                int(self.hierarchy.ancestors(level, "patient")[at])
                for level, at in self._places(number)
                if at is not None and not may[level][at]
            }
        return len(who)

    def _grown(self, may: May) -> set[int]:
        """Makings that took somebody who may not be inside, and everything made from them. What is lost counts as
        anybody."""
        flags = cache(lambda asset, level: may(asset, level).tolist())
        bars = cache(lambda asset: not all(all(flags(asset, level)) for level in ENTITY_LEVELS))
        found = {
            number
            for number, one in self.lineage.makings.items()
            if self._took(number, flags) or (bars(one.asset) and self.lineage.has_lost_input(number))
        }
        grown = bool(found)
        while grown:  # once, unless something was made the other way round
            before = len(found)
            for number in sorted(self.lineage.makings.keys() - found):
                if not found.isdisjoint(self.lineage.sources(number)):
                    found.add(number)
            grown = len(found) > before
        return found

    def _took(self, making: int, may: Callable[[str, str], Sequence[bool]]) -> bool:
        """Entities that are no longer registered may not be used either."""
        asset = self.lineage.makings[making].asset
        return any(at is None or not may(asset, level)[at] for level, at in self._places(making))

    def _places(self, making: int) -> Iterable[tuple[str, int | None]]:
        """The entities of a making and its members, as level and position. For a step that is gone: all entities
        with the ID."""
        one = self.lineage.makings[making]
        for asset, who in {one.node, *(used[1:3] for used in self.lineage.edges.get(making, ()))}:
            level = self.snapshot.shape.levels.get(asset, asset)
            if level in ENTITY_LEVELS:
                yield level, self.snapshot.entities[level].index.get(who)
            elif level not in ("cohort", "reference"):
                places = ((one, self.snapshot.entities[one].index.get(who)) for one in ENTITY_LEVELS)
                yield from ((one, at) for one, at in places if at is not None)
