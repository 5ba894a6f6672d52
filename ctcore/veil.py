"""⑦ Words for people in which nobody is named who is not to be seen, except where they were asked for by name."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ctcore.mirror.mirror import Mirror
from ctcore.mirror.ranges import Flags
from ctcore.project import Project
from ctcore.reasons import Node, Reason, Verdict
from ctcore.standing import today
from ctcore.step import ENTITY_LEVELS

WITHHELD = "somebody who may not be used"
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
        """The text, unless it names somebody who is hidden."""
        return f"{text.partition(':')[0]}: {WITHHELD}" if self.is_in(text) else text

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
        if not self or not (any(self.hides(node) for node in nodes) or self.is_in(reason.words)):
            return reason
        return Reason(reason.kind, WITHHELD, input=reason.input, sources=reason.sources)

    def verdict(self, verdict: Verdict) -> Verdict:
        if not self:
            return verdict
        some = tuple(self.reason(reason) for reason in verdict.reasons)
        waived = tuple(self.reason(reason) for reason in verdict.waived)
        return replace(verdict, reasons=some, waived=waived)

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


def veil(project: Project) -> Veil:
    """Nobody sees patients without consent and what is below them."""
    with project.catalog.read() as connection:
        mirror, inputs = today(project, connection)
    return Veil(mirror, inputs.kin.withheld)
