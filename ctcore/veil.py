"""⑦ Words for people in which nobody is named who is not to be seen, except where they were asked for by name."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

import numpy as np

from ctcore.leftout import counted
from ctcore.mirror.mirror import Mirror
from ctcore.mirror.ranges import Flags
from ctcore.project import Project
from ctcore.reasons import Node, Reason, Verdict
from ctcore.standing import today
from ctcore.step import ENTITY_LEVELS

WITHHELD = "somebody who may not be used"
NOBODY = "…"
WAY = "--excluded --reason TEXT shows it, and that is recorded"
_TOLD = ("missing", "excluded")  # reasons without a node whose words may name somebody
_WORD = re.compile(r"[^\s/,;:=()\[\]{}'\"`|]+")


@dataclass(frozen=True)
class Veil:
    """Whom nobody sees, by level and position, in one state of the catalog."""

    mirror: Mirror
    hidden: Mapping[str, Flags]

    @cached_property
    def ids(self) -> dict[str, set[str]]:
        """The hidden IDs of each level."""
        found = {}
        for level in ENTITY_LEVELS:
            ids = self.mirror.entities[level].ids
            found[level] = {ids[at] for at in np.flatnonzero(self.hidden[level]).tolist()}
        return found

    @cached_property
    def _all(self) -> set[str]:
        return set().union(*self.ids.values())

    def __bool__(self) -> bool:
        return any(flags.any() for flags in self.hidden.values())

    def hides(self, node: Node) -> bool:
        """Whether a node, of a step or registered, belongs to somebody who is hidden."""
        return node[1] in self.of(node[0])

    def of(self, asset: str) -> set[str]:
        """The hidden partitions of an asset; of a step that is not there any more, all hidden IDs."""
        level = self.mirror.shape.levels.get(asset, asset)
        return set() if level in ("cohort", "reference") else self.ids.get(level, self._all)

    def text(self, text: str) -> str:
        """The text, unless it names somebody who is hidden; of a reason, its kind stays."""
        if not self.is_in(text):
            return text
        kind = text.partition(":")[0]
        return WITHHELD if self.is_in(kind) else f"{kind}: {WITHHELD}"

    def is_in(self, text: str) -> bool:
        """Whether a text names somebody who is hidden, or a file whose name begins so."""
        if not self._all:
            return False
        words = set(_WORD.findall(text))
        words |= {word[:at] for word in words for at, sign in enumerate(word) if sign in "._"}
        return not words.isdisjoint(self._all)

    def reason(self, reason: Reason) -> Reason:
        """The same kind of reason, without whoever is hidden."""
        nodes = [node for node in (reason.node, *reason.path) if node is not None]
        named = any(self.hides(node) for node in nodes) or (
            not nodes and reason.kind in _TOLD and self.is_in(reason.words)
        )
        return Reason(reason.kind, WITHHELD, input=reason.input, sources=reason.sources) if named else reason

    def verdict(self, verdict: Verdict) -> Verdict:
        """The same verdict, without whoever is hidden; its reasons are still told when they are looked at."""
        if not self:
            return verdict
        name = NOBODY if self.hides(verdict.node) else verdict.partition
        waived = tuple(self.reason(reason) for reason in verdict.waived)
        return replace(verdict, partition=name, reasons=_Seen(self, verdict.reasons), waived=waived)

    @property
    def words(self) -> str:
        """How many are not shown; empty where nobody is hidden."""
        some = [counted(len(ids), level) for level, ids in self.ids.items() if ids]
        return f"not shown, because without consent: {', '.join(some)}; {WAY}" if some else ""

    def lines(self, said: Iterable[str]) -> Iterator[str]:
        """Those that name nobody who is hidden; the others are counted in one line at the end."""
        others = 0
        for line in said:
            if self.is_in(line):
                others += 1
            else:
                yield line
        if others:
            yield f"{others} × {WITHHELD}"


class _Seen(Sequence[Reason]):
    """Reasons behind a veil, put into words when somebody looks."""

    def __init__(self, veil: Veil, reasons: Sequence[Reason]) -> None:
        self._veil, self._reasons = veil, reasons

    @cached_property
    def _told(self) -> tuple[Reason, ...]:
        return tuple(self._veil.reason(one) for one in self._reasons)

    def __len__(self) -> int:
        return len(self._reasons)

    @overload
    def __getitem__(self, at: int) -> Reason: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Reason]: ...
    def __getitem__(self, at: int | slice) -> Reason | Sequence[Reason]:
        return self._told[at]


def veil(project: Project) -> Veil:
    """Nobody sees patients without consent and what is below them."""
    with project.catalog.read() as connection:
        mirror, inputs = today(project, connection)
    return Veil(mirror, inputs.kin.withheld)
