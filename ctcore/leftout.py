"""⑦ How many may not be used, and for what kinds of reasons. Counts only: nobody is named."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import Connection

from ctcore.inputs import Inputs
from ctcore.mirror.entities import Entities, located
from ctcore.mirror.versions import Places
from ctcore.policy import Bar, bars
from ctcore.step import ENTITY_LEVELS

Kinds = Mapping[str, int]
SHOWN = 5  # steps that are named


@dataclass(frozen=True)
class LeftOut:
    """By level and kind, those who may not be used at all (each once); by step, those who may not be for that only."""

    levels: Mapping[str, Kinds] = field(default_factory=dict)
    steps: Mapping[str, Mapping[str, Kinds]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.levels or self.steps)

    @property
    def words(self) -> str:
        """`2 patients (1 consent revoked, 1 qc_fail), 3 assays (3 consent revoked)`; empty where nobody is."""
        alike: dict[str, list[str]] = {}
        for step, some in self.steps.items():
            alike.setdefault(_said(some), []).append(step)
        said = [f"for {_listed(steps)} only: {words}" for words, steps in list(alike.items())[:SHOWN]]
        rest = sum(map(len, list(alike.values())[SHOWN:]))
        if rest:
            said.append(f"and for {rest} more steps")
        return "; ".join([*([_said(self.levels)] if self.levels else []), *said])


def left_out(connection: Connection, inputs: Inputs) -> LeftOut:
    """Who may not be used today: one look at the events and consents."""
    kin, shape = inputs.kin, inputs.mirror.shape
    if all(flags.all() for flags in kin.usable.values()) and not any(one.barred_for for one in kin.entities.values()):
        return LeftOut()
    found = bars(connection, shape.uses, inputs.mirror.days[0], required=shape.required)
    kinds = list(dict.fromkeys(bar.kind for bar in found))
    levels: dict[str, Kinds] = {}
    above: Places = np.zeros(0, np.int64)
    for level in ENTITY_LEVELS:
        some = kin.entities[level]
        own = _own(some, [bar for bar in found if bar.step is None], kinds)
        inherited = own if level == "patient" else above[some.parents]
        above = np.where(inherited >= 0, inherited, own)
        levels[level] = {kinds[at]: int((above == at).sum()) for at in np.unique(above[above >= 0])}
    by_step: dict[str, dict[str, Kinds]] = {}
    for step in dict.fromkeys(bar.step for bar in found if bar.step in shape.uses):
        only = [bar for bar in found if bar.step == step]
        for level in ENTITY_LEVELS:
            own = _own(kin.entities[level], only, kinds)[kin.usable[level]]
            if (own >= 0).any():
                counted = {kinds[at]: int((own == at).sum()) for at in np.unique(own[own >= 0])}
                by_step.setdefault(step or "", {})[level] = counted
    return LeftOut({level: some for level, some in levels.items() if some}, by_step)


def _own(some: Entities, found: Sequence[Bar], kinds: Sequence[str]) -> Places:
    """The kind of the first bar of everybody of a level, as its place in `kinds`; -1 where there is none."""
    own = np.full(len(some), -1)
    first: dict[int, str] = {}
    for bar in found:
        first.setdefault(bar.entity, bar.kind)
    place, here = located(some.seq, np.array(list(first), np.int64))
    number = {kind: at for at, kind in enumerate(kinds)}
    own[place[here]] = np.array([number[kind] for kind in first.values()], np.int64)[here]
    return own


def _listed(steps: Sequence[str]) -> str:
    more = len(steps) - SHOWN
    return ", ".join(steps[:SHOWN]) + (f" and {more} more step{'s' * (more > 1)}" if more > 0 else "")


def _said(levels: Mapping[str, Kinds]) -> str:
    return ", ".join(f"{counted(sum(some.values()), level)} ({by_kind(some)})" for level, some in levels.items())


def counted(number: int, level: str) -> str:
    """`1 patient`, `2 patients`."""
    return f"{number:,} {level}{'s' * (number != 1)}"


def by_kind(kinds: Kinds) -> str:
    """The most frequent kind first."""
    return ", ".join(f"{n:,} {kind}" for kind, n in Counter(kinds).most_common())
