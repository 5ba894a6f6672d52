"""From kinds of reasons to reasons with evidence, only for the nodes that somebody asks about."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ctcore.inputs.resolve import ResolvedInput
from ctcore.model.masked_text import Plain, Words
from ctcore.model.node import Node
from ctcore.model.reasons import Reason, State, node_text
from ctcore.project import Project
from ctcore.snapshot.versions import Places
from ctcore.staleness.direct_reasons import direct_reasons
from ctcore.staleness.evaluate import BIT, Evaluator, NodeStates
from ctcore.step import Step

Place = tuple[str, int]  # a node by its position
DIRECT = (1 << 16) - 1 - BIT["upstream"]


class Evidence:
    """The reasons of one evaluation's nodes. A reason is computed once and kept."""

    def __init__(self, project: Project, state: NodeStates, special: Mapping[Node, State]) -> None:
        self.project = project
        self.state = state
        self.special = special
        self._direct: dict[str, dict[int, list[Reason]]] = defaultdict(dict)

    def reasons(self, step: Step, places: Places) -> dict[int, tuple[Reason, ...]]:
        """All reasons of these nodes, direct ones first."""
        self._add_direct(step, places)
        waiting = places[(self.state.kinds[step.name][places] & BIT["upstream"]) != 0]
        because = self._upstream(step, waiting) if len(waiting) else {}
        return {at: (*self._direct[step.name].get(at, ()), *because.get(at, ())) for at in places.tolist()}

    def state_of(self, step: str, place: int) -> State:
        """The verdict in a word; of a node that is not fresh."""
        special = self.special.get((step, self.state.snapshot.name(step, place)))
        kinds = int(self.state.kinds[step][place])
        if special is not None:
            return special
        if kinds & BIT["bytes"]:
            return "lost"
        return "missing" if kinds & BIT["missing"] else "stale"

    def _add_direct(self, step: Step, places: Places) -> None:
        """Compute the direct reasons of these nodes if they are missing; accepted ones are left out."""
        known = self._direct[step.name]
        direct = (self.state.kinds[step.name][places] & DIRECT) != 0
        new = np.array([at for at in places[direct].tolist() if at not in known], np.int64)
        if not len(new):
            return
        with self.project.catalog.read() as connection:
            judge = Evaluator(self.project, connection, self.state.snapshot, self.state.inputs)
            told = direct_reasons(judge, step, new)
        waived = self.state.waived.get(step.name, {})
        for at, reasons in told.items():
            taken = waived.get(at, ())
            known[at] = [reason for reason in reasons if reason not in taken]

    def _upstream(self, step: Step, places: Places) -> dict[int, list[Reason]]:
        """Ancestors that are not fresh: by input the first one, with its root cause and how many more."""
        found: dict[int, list[Reason]] = defaultdict(list)
        firsts: list[tuple[int, ResolvedInput, int, int]] = []
        for want in self.state.inputs.wants(step):
            if want.what == "step":
                for owner, source, count in self._first_stale(want, places):
                    firsts.append((int(places[owner]), want, source, count))
        ways = self._ways([(want.asset, source) for _, want, source, _ in firsts])
        for asset in {way[-1][0] for way in ways}:
            self._add_direct(self.project.steps[asset], np.array(sorted({w[-1][1] for w in ways if w[-1][0] == asset})))
        for (at, want, _, count), way in zip(firsts, ways, strict=True):
            found[at].append(self._reason(want.input, way, count))
        return found

    def _first_stale(self, want: ResolvedInput, places: Places) -> Iterator[tuple[int, int, int]]:
        """Of each of these nodes: the first source of this input that is not fresh, and how many are not."""
        owner, source = want.pairs(places)
        bad = self.state.kinds[want.asset][source] != 0
        owner, source = owner[bad], source[bad]
        # `return_index` is of the first occurrence (numpy.unique), and pairs come in the order of the cohort.
        groups, first, counts = np.unique(owner, return_index=True, return_counts=True)
        yield from zip(groups.tolist(), source[first].tolist(), counts.tolist(), strict=True)

    def _ways(self, starts: Sequence[Place]) -> list[list[Place]]:
        """From each node that is not fresh to the first ancestor that has a reason of its own, all at once."""
        following: dict[Place, Place] = {}
        front = set(starts)
        while front:
            by_asset: dict[str, list[int]] = defaultdict(list)
            for asset, place in front - following.keys():
                if not int(self.state.kinds[asset][place]) & DIRECT:
                    by_asset[asset].append(place)
            found = {node: up for asset, some in by_asset.items() for node, up in self._next(asset, some)}
            following |= found
            front = set(found.values())
        ways = [[start] for start in starts]
        for way in ways:
            while (up := following.get(way[-1])) is not None:
                way.append(up)
        return ways

    def _next(self, asset: str, places: Sequence[int]) -> Iterator[tuple[Place, Place]]:
        """Each of these nodes, and of its first input with a source that is not fresh, the first such source."""
        left = np.array(sorted(places), np.int64)
        for want in self.state.inputs.wants(self.project.steps[asset]):
            if want.what != "step" or not len(left):
                continue
            owners: list[int] = []
            for owner, source, _ in self._first_stale(want, left):
                owners.append(owner)
                yield (asset, int(left[owner])), (want.asset, source)
            left = np.delete(left, owners)

    def _reason(self, name: str, way: Sequence[tuple[str, int]], count: int) -> Reason:
        path = tuple((asset, self.state.snapshot.name(asset, place)) for asset, place in way)
        more = Plain(f", and {count - 1} more" if count > 1 else "")
        first = Plain(f"{name} ("), node_text(path[0])
        if len(way) > 1:
            words = Words(*first, ") waits for ", node_text(path[-1]), more)
        elif (state := self.state_of(*way[0])) == "missing":
            words = Words(*first, ") was never made", more)
        else:
            direct = self._direct[way[0][0]][way[0][1]][0]
            words = Words(*first, Plain(f") is {state} ("), direct.sentence, ")", more)
        return Reason("upstream", words, path[-1], path, name, sources=count)
