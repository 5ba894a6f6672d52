"""Mask the IDs of people without consent in any text, unless they were asked for by name."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import overload

from sqlalchemy import Connection

from ctcore.governance.access import hidden_ids
from ctcore.model.levels import count_text
from ctcore.model.masked_text import UNTOLD, NodeName, Part, Plain, QuotedText, Words
from ctcore.model.node import Node, name_of
from ctcore.model.reasons import Reason, Verdict
from ctcore.project import Project
from ctcore.util.clock import today

WITHHELD = "somebody who may not be used"
NOBODY = UNTOLD
WAY = "--excluded --reason TEXT shows it, and that is recorded"
# `.`, `_` and `-` separate nothing here, because IDs may have them.
_WORD = re.compile(r"[^\s/,;:=()\[\]{}'\"`|]+")


@dataclass(frozen=True)
class Mask:
    """The hidden IDs of each level. `levels` are those of the steps.

    Only a mask turns `Words` into full text. It drops a whole sentence that names somebody hidden, because the rest is
    about them too. A quoted sentence is kept or dropped by itself.
    """

    ids: Mapping[str, Set[str]] = field(default_factory=dict)
    levels: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _all(self) -> set[str]:
        return set().union(*self.ids.values())

    def __bool__(self) -> bool:
        return bool(self._all)

    def hides(self, node: Node) -> bool:
        """Whether a node, of a step or registered, belongs to somebody hidden."""
        return node[1] in self.hidden_partitions(node[0])

    def hidden_partitions(self, asset: str) -> Set[str]:
        """The hidden partitions of an asset; of a step that is not there any more, all hidden IDs."""
        level = self.levels.get(asset, asset)
        return set() if level in ("cohort", "reference") else self.ids.get(level, self._all)

    def name(self, node: Node) -> str:
        """A node's name, or a placeholder if it belongs to somebody hidden."""
        return f"{node[0]}/{NOBODY}" if self.hides(node) else name_of(node)

    def mask_words(self, words: Words) -> str:
        """The whole sentence; empty if it names somebody hidden."""
        if self._all and any(map(self._names, words.parts)):
            return WITHHELD
        return "".join([part if type(part) is str else self._mask_part(part) for part in words.parts])

    def _mask_part(self, part: Part) -> str:
        if isinstance(part, Words):
            return self.mask_words(part)
        return part if isinstance(part, str) else part.text

    def _names(self, part: Part) -> bool:
        if isinstance(part, NodeName):
            return self.hides(part.node)
        return isinstance(part, QuotedText) and self.names_hidden(part.text)

    def text(self, text: str) -> str:
        """The text, unless it names somebody hidden. The kind of a reason stays."""
        if not self.names_hidden(text):
            return text
        kind = text.partition(":")[0]
        return WITHHELD if self.names_hidden(kind) else f"{kind}: {WITHHELD}"

    def names_hidden(self, text: str) -> bool:
        """Whether a text names somebody hidden, or a file whose name begins with such an ID."""
        if not self._all:
            return False
        words = set(_WORD.findall(text))
        words |= {word[:at] for word in words for at, sign in enumerate(word) if sign in "._"}
        return not words.isdisjoint(self._all)

    def reason(self, reason: Reason) -> Reason:
        """The reason as text. If it is about somebody hidden, only its kind and input remain."""
        if not self._all and reason.words.is_plain:
            return reason
        words = self.mask_words(reason.words)
        if self._all and (words == WITHHELD or any(self.hides(node) for node in (reason.node, *reason.path) if node)):
            return Reason(reason.kind, Words(WITHHELD), input=reason.input, sources=reason.sources)
        known = (reason.node, reason.path, reason.input, reason.old, reason.new, reason.sources)
        return Reason(reason.kind, Words(Plain(words)), *known)

    def verdict(self, verdict: Verdict) -> Verdict:
        """The verdict without hidden people; its reasons are masked when they are read."""
        name = NOBODY if self._all and self.hides(verdict.node) else verdict.partition
        waived = tuple(self.reason(reason) for reason in verdict.waived) if verdict.waived else ()
        return Verdict(verdict.asset, name, verdict.state, _Seen(self, verdict.reasons), verdict.kinds, waived)

    @property
    def words(self) -> str:
        """How many people are hidden; empty if there are none."""
        some = [count_text(len(ids), level) for level, ids in self.ids.items() if ids]
        return f"not shown, because without consent: {', '.join(some)}; {WAY}" if some else ""

    def lines(self, said: Iterable[str]) -> Iterator[str]:
        """The lines that name nobody hidden, and one line that counts the others."""
        others = 0
        for line in said:
            if self.names_hidden(line):
                others += 1
            else:
                yield line
        if others:
            yield f"{others} × {WITHHELD}"


class _Seen(Sequence[Reason]):
    """Reasons behind a mask, put into words when they are read."""

    __slots__ = ("_mask", "_reasons", "_told")

    def __init__(self, mask: Mask, reasons: Sequence[Reason]) -> None:
        self._mask, self._reasons = mask, reasons
        self._told: tuple[Reason, ...] | None = None

    def _all(self) -> tuple[Reason, ...]:
        if self._told is None:
            self._told = tuple([self._mask.reason(one) for one in self._reasons])
        return self._told

    def __len__(self) -> int:
        return len(self._reasons)

    def __iter__(self) -> Iterator[Reason]:
        """Iterate as `ctcore.staleness.verdicts` does, because each reason is visited ten times."""
        return iter(self._all())

    @overload
    def __getitem__(self, at: int) -> Reason: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Reason]: ...
    def __getitem__(self, at: int | slice) -> Reason | Sequence[Reason]:
        return self._all()[at]


UNMASKED = Mask()
"""For commands that are about people, for what was asked for by name, and for what is written into the catalog."""


def mask_of(project: Project, connection: Connection | None = None) -> Mask:
    """The mask of patients without consent and their descendants, from one statement."""
    levels = {step.name: step.level for step in project.steps}
    if connection is not None:
        return Mask(hidden_ids(connection, today(), project.settings.uses.required), levels)
    with project.catalog.read() as reading:
        return mask_of(project, reading)


def mask_for(project: Project, typed: str) -> Mask:
    """The mask for a person who typed these names: they learn why a hidden one is hidden."""
    seen = mask_of(project)
    return UNMASKED if seen.names_hidden(typed) else seen
