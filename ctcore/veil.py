"""⑦ Words for people in which nobody is named who is not to be seen, except where they were asked for by name."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import overload

from sqlalchemy import Connection

from ctcore.clock import today
from ctcore.leftout import counted
from ctcore.policy import hidden
from ctcore.project import Project
from ctcore.reasons import Node, Reason, Verdict, name_of
from ctcore.words import UNTOLD, Named, Part, Plain, Recorded, Words

WITHHELD = "somebody who may not be used"
NOBODY = UNTOLD
WAY = "--excluded --reason TEXT shows it, and that is recorded"
_WORD = re.compile(r"[^\s/,;:=()\[\]{}'\"`|]+")


@dataclass(frozen=True)
class Veil:
    """Whom nobody sees: the hidden IDs of each level. `levels` are those of the steps.

    It is the one thing that tells `Words` in full. Of a sentence that names somebody hidden it tells nothing else, as
    what is said of them is theirs too; a sentence that is quoted in another one is told, or not, by itself.
    """

    ids: Mapping[str, Set[str]] = field(default_factory=dict)
    levels: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _all(self) -> set[str]:
        return set().union(*self.ids.values())

    def __bool__(self) -> bool:
        return bool(self._all)

    def hides(self, node: Node) -> bool:
        """Whether a node, of a step or registered, belongs to somebody who is hidden."""
        return node[1] in self.of(node[0])

    def of(self, asset: str) -> Set[str]:
        """The hidden partitions of an asset; of a step that is not there any more, all hidden IDs."""
        level = self.levels.get(asset, asset)
        return set() if level in ("cohort", "reference") else self.ids.get(level, self._all)

    def name(self, node: Node) -> str:
        """A node as it is written, or that it is somebody's who is hidden."""
        return f"{node[0]}/{NOBODY}" if self.hides(node) else name_of(node)

    def told(self, words: Words) -> str:
        """The whole sentence; of one that names somebody who is hidden, nothing."""
        if self._all and any(map(self._names, words.parts)):
            return WITHHELD
        return "".join([part if type(part) is str else self._told(part) for part in words.parts])

    def _told(self, part: Part) -> str:
        if isinstance(part, Words):
            return self.told(part)
        return part if isinstance(part, str) else part.text

    def _names(self, part: Part) -> bool:
        if isinstance(part, Named):
            return self.hides(part.node)
        return isinstance(part, Recorded) and self.is_in(part.text)

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
        """The same reason, told; where it is about somebody who is hidden, its kind and its input only."""
        if not self._all and reason.words.is_plain:
            return reason
        words = self.told(reason.words)
        if self._all and (words == WITHHELD or any(self.hides(node) for node in (reason.node, *reason.path) if node)):
            return Reason(reason.kind, Words(WITHHELD), input=reason.input, sources=reason.sources)
        known = (reason.node, reason.path, reason.input, reason.old, reason.new, reason.sources)
        return Reason(reason.kind, Words(Plain(words)), *known)

    def verdict(self, verdict: Verdict) -> Verdict:
        """The same verdict, without whoever is hidden; its reasons are told when they are looked at."""
        name = NOBODY if self._all and self.hides(verdict.node) else verdict.partition
        waived = tuple(self.reason(reason) for reason in verdict.waived) if verdict.waived else ()
        return Verdict(verdict.asset, name, verdict.state, _Seen(self, verdict.reasons), verdict.kinds, waived)

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

    __slots__ = ("_reasons", "_told", "_veil")

    def __init__(self, veil: Veil, reasons: Sequence[Reason]) -> None:
        self._veil, self._reasons = veil, reasons
        self._told: tuple[Reason, ...] | None = None

    def _all(self) -> tuple[Reason, ...]:
        if self._told is None:
            self._told = tuple([self._veil.reason(one) for one in self._reasons])
        return self._told

    def __len__(self) -> int:
        return len(self._reasons)

    def __iter__(self) -> Iterator[Reason]:
        """As `ctcore.staleness` does it: what is gone through ten times is not to be slow."""
        return iter(self._all())

    @overload
    def __getitem__(self, at: int) -> Reason: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Reason]: ...
    def __getitem__(self, at: int | slice) -> Reason | Sequence[Reason]:
        return self._all()[at]


UNVEILED = Veil()
"""For commands that are about people, for what was asked for by name, and for what is written into the catalog."""


def veil(project: Project, connection: Connection | None = None) -> Veil:
    """Nobody sees patients without consent and what is below them: one statement."""
    levels = {step.name: step.level for step in project.steps}
    if connection is not None:
        return Veil(hidden(connection, today(), project.settings.uses.required), levels)
    with project.catalog.read() as reading:
        return veil(project, reading)
