"""Why nodes are excluded: who is barred and why, or which input is missing."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from sqlalchemy import Connection

from ctcore.governance.access import Bar, bars
from ctcore.inputs.contributors import Contributors
from ctcore.inputs.resolve import Inputs
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.model.masked_text import NodeName, Plain, QuotedText, Words
from ctcore.model.node import Node
from ctcore.model.reasons import Reason
from ctcore.snapshot.hierarchy import rank
from ctcore.snapshot.snapshot import Snapshot
from ctcore.snapshot.versions import Places
from ctcore.step import Step

LACKS = "without what the step needs"
INSIDE = "with somebody inside who does not consent"

Who = tuple[str, int, str | None]
"""Level, position, and the step for which somebody is barred; None: for all."""


def why_excluded(
    connection: Connection, inputs: Inputs, step: Step, places: Iterable[int]
) -> dict[int, tuple[Reason, ...]]:
    """The reasons of these partitions of a step, which are none of its nodes."""
    if step.level == "cohort":
        return {at: tuple(dict.fromkeys(_held(inputs, step, at))) for at in places}
    finder = _Finder(inputs)
    barred = {at: finder.of(step, at) for at in places}
    said = _words(connection, inputs, [who for some in barred.values() for who in some])
    needs = ", ".join([*step.files, *step.inputs]) or step.level
    lacks = (Reason("missing", Words(Plain(f"has not what {step.name} needs ({needs})"))),)
    return {at: tuple(dict.fromkeys(one for who in some for one in said[who])) or lacks for at, some in barred.items()}


def _held(inputs: Inputs, step: Step, cohort: int) -> Iterator[Reason]:
    """The input through which a cohort's result would contain people without consent, how many, and the ways out."""
    for up in inputs.cohort_inputs(step):
        who = inputs.nonconsenting_patients(step, up, cohort)
        if len(who):
            name, use = inputs.snapshot.name(up.name, cohort), inputs.snapshot.shape.uses[step.name]
            yield Reason("excluded", Words(Plain(_not_for(inputs, step, up, f"{up.name}/{name}", use, len(who)))))
        elif not inputs.nodes(up)[cohort]:
            yield from _held(inputs, up, cohort)


def _not_for(inputs: Inputs, step: Step, up: Step, node: str, use: str | None, many: int) -> str:
    who = f"{many:,} patients inside {node} do" if many > 1 else f"1 patient inside {node} does"
    if use is None:
        return f"{who} not consent to every use, and {step.name} is for no use that ct.toml names: [consent.steps]"
    uses = inputs.snapshot.shape.uses
    above = inputs.graph.upstream([up.name])
    others = [one.name for one in inputs.graph if one.name in above and one.level == "cohort" and uses[one.name] != use]
    way = ", ".join(f'{name} = "{use}"' for name in others)
    return (
        f"{who} not consent to {use}, which {step.name} is for; [consent.steps] {way} makes {node} without them, "
        f"or another use of {step.name} is declared there"
    )


def why_not_used(
    connection: Connection, inputs: Inputs, step: str | None, level: str, place: int
) -> tuple[Reason, ...]:
    """Why an entity is excluded from a step (None: from all), by itself or by its ancestors."""
    return why_none_is_used(connection, inputs, step, level, [place])[place]


def why_none_is_used(
    connection: Connection, inputs: Inputs, step: str | None, level: str, places: Iterable[int]
) -> dict[int, tuple[Reason, ...]]:
    """The same of several entities of a level, in two statements. Empty for one that may be used."""
    finder = _Finder(inputs)
    whose = {place: list(finder.barred(step, level, place)) for place in places}
    said = _words(connection, inputs, [who for some in whose.values() for who in some])
    return {place: tuple(one for who in some for one in said[who]) for place, some in whose.items()}


def count_exclusions(
    connection: Connection, inputs: Inputs, step: str, level: str, places: Iterable[int]
) -> Counter[str]:
    """By what these entities of a level are excluded from a step: kind → how many, each counted once. Names nobody."""
    finder = _Finder(inputs)
    first = (next(finder.barred(step, level, place), None) for place in places)
    return _count_kinds(connection, inputs, step, [who for who in first if who is not None])


def count_excluded(connection: Connection, inputs: Inputs, step: Step, places: Iterable[int]) -> Counter[str]:
    """Why these partitions of a step, which are none of its nodes, are excluded: kind → how many, each counted once.
    Names nobody."""
    listed = list(places)
    if step.level == "cohort":
        return Counter({INSIDE: len(listed)}) if listed else Counter()
    finder = _Finder(inputs)
    first = [next(iter(finder.of(step, place)), None) for place in listed]
    found = _count_kinds(connection, inputs, step.name, [who for who in first if who is not None])
    lacking = first.count(None)
    return found + Counter({LACKS: lacking})


def _count_kinds(connection: Connection, inputs: Inputs, step: str, whose: Sequence[Who]) -> Counter[str]:
    """The kinds of the first bars of all of them, from one look."""
    if not whose:
        return Counter()
    shape = inputs.snapshot.shape
    numbers = {who: int(inputs.hierarchy.entities[who[0]].seq[who[1]]) for who in whose}
    kinds: dict[int, str] = {}
    for bar in bars(connection, shape.uses, inputs.snapshot.days[0], set(numbers.values()), shape.required):
        if bar.step in (None, step):
            # The first holds: `bars` lists those of consent before those of quality.
            kinds.setdefault(bar.entity, bar.kind)
    return Counter(kinds[numbers[who]] for who in whose)


def by_kind(counts: Mapping[str, int]) -> str:
    """How many of each kind: `2 consent revoked, 1 qc_fail`. The most frequent first; of as many each, by name."""
    return ", ".join(f"{n:,} {kind}" for kind, n in sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def without_consent(
    connection: Connection, snapshot: Snapshot, inputs: Inputs, step: Step, went: Iterable[Reason]
) -> set[Node]:
    """Which removed members a step may not use for lack of consent, and which changed cohort results contained
    somebody without consent. Both are queried at once."""
    went = list(went)
    within = Contributors.permitted(lambda: connection, snapshot, inputs, step.name)
    return _gone(connection, inputs, step, went) | _other(within, step, went)


def _other(within: Contributors, step: Step, went: Iterable[Reason]) -> set[Node]:
    ups = (
        {up.name for up in within.inputs.cohort_inputs(step)}
        if within.inputs.hierarchy.forbids(step.name)
        else set[str]()
    )
    nodes = {one.node for one in went if one.kind == "input" and one.node and one.node[0] in ups}
    clean = within.permitted_nodes(step.name) if nodes else np.zeros(0, np.bool_)
    return {node for node in nodes if not clean[within.snapshot.locate(step.name, [node[1]])[0]]}


def _gone(connection: Connection, inputs: Inputs, step: Step, went: Iterable[Reason]) -> set[Node]:
    finder, snapshot = _Finder(inputs), inputs.snapshot
    whose: dict[Node, list[Who]] = {}
    nodes = {one.node for one in went if one.kind == "member-removed" and one.node} if finder.someone else set[Node]()
    for asset, partition in nodes:
        level, place = snapshot.shape.levels.get(asset, "cohort"), snapshot.locate(asset, [partition])[0]
        if place >= 0 and level != "cohort":
            whose[asset, partition] = list(finder.barred(step.name, level, place))
    said = _words(connection, inputs, [who for some in whose.values() for who in some], ethics=True)
    return {node for node, some in whose.items() if any(said[who] for who in some)}


class _Finder:
    """Finds who bars a node: its entity, an ancestor, or an entity of a required input."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs, self.hierarchy = inputs, inputs.hierarchy
        self.someone = any(some.barred.any() or some.barred_for for some in self.hierarchy.entities.values())

    def of(self, step: Step, place: int) -> list[Who]:
        if not self.someone:
            return []
        own = list(self.barred(step.name, step.level, place))
        if own:
            return own
        for up in (self.inputs.graph[name] for name in step.inputs.values()):
            sources = self._sources(step.level, place, up.level)
            there = self.inputs.nodes(up)[sources] & self.hierarchy.usable_for(step.name, up.level)[sources]
            if not there.any():
                for source in sources.tolist():
                    found = [*self.barred(step.name, up.level, source), *self.of(up, source)]
                    if found:
                        return list(dict.fromkeys(found))
        return []

    def barred(self, step: str | None, level: str, place: int) -> Iterator[Who]:
        for higher in ENTITY_LEVELS[: rank(level) + 1]:
            at, some = int(self.hierarchy.ancestors(level, higher)[place]), self.hierarchy.entities[higher]
            only = some.barred_for.get(step or "")
            if some.barred[at] or (only is not None and only[at]):
                yield (higher, at, step)

    def _sources(self, level: Level, place: int, other: Level) -> Places:
        if rank(other) <= rank(level):
            return self.hierarchy.ancestors(level, other)[[place]]
        return self.hierarchy.descendants(level, other).pairs(np.array([place]))[1]


def _words(
    connection: Connection, inputs: Inputs, whose: Sequence[Who], ethics: bool = False
) -> dict[Who, list[Reason]]:
    """One look at the events and consents of all of them; or at consents only."""
    entities, shape = inputs.hierarchy.entities, inputs.snapshot.shape
    numbers = {who: int(entities[who[0]].seq[who[1]]) for who in whose}
    by_entity: dict[int, list[Bar]] = {}
    listed = set(numbers.values())
    for bar in bars(connection, shape.uses, inputs.snapshot.days[0], listed, shape.required) if numbers else ():
        by_entity.setdefault(bar.entity, []).append(bar)
    found: dict[Who, list[Reason]] = {}
    for (level, at, step), number in numbers.items():
        name = entities[level].ids[at]
        found[level, at, step] = [
            Reason(
                "excluded",
                Words(NodeName((level, name), f"{level} {name}"), ": ", QuotedText(bar.words)),
                (level, name),
            )
            for bar in by_entity.get(number, ())
            if bar.step in (None, step) and (bar.ethics or not ethics)
        ]
    return found
