"""⑦ Sentences that may name people. As text they name nobody: who may be named, the veil decides (`ctcore.veil`).

A part that is no name is a literal of the code, or is declared to be plain: the type checker lets nothing else in.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import LiteralString, NamedTuple, NewType, TypeAlias, Union

Node = tuple[str, str]
UNTOLD = "…"
Plain = NewType("Plain", str)
"""Text that names nobody: of steps, columns, references, digests, numbers."""


class Named(NamedTuple):
    """A node as it stands in a sentence."""

    node: Node
    text: str


class Recorded(NamedTuple):
    """What a person or a tool has said, and what was written down earlier: it may name anybody."""

    text: str


Part: TypeAlias = Union[LiteralString, Plain, Named, Recorded, "Words"]


@dataclass(frozen=True, init=False, repr=False, slots=True)
class Words:
    """A sentence in its parts. `str`, `format` and `repr` leave out every name and all that was recorded.

    A sentence that quotes another one has it as a part, so that each is told, or not, by itself.
    """

    parts: tuple[Part, ...]

    def __init__(self, *parts: Part) -> None:
        object.__setattr__(self, "parts", parts)

    def __str__(self) -> str:
        return "".join(UNTOLD if isinstance(part, Named | Recorded) else str(part) for part in self.parts)

    def __repr__(self) -> str:
        return f"Words({str(self)!r})"

    @property
    def is_plain(self) -> bool:
        """Whether it is one text that names nobody, as when it has been told."""
        return len(self.parts) == 1 and type(self.parts[0]) is str

    def __bool__(self) -> bool:
        return any(self.parts)


def joined(some: Iterable[Words], between: LiteralString = "; ") -> Words:
    """Several sentences in one line."""
    parts: list[Part] = []
    for one in some:
        parts += [between, one] if parts else [one]
    return Words(*parts)
