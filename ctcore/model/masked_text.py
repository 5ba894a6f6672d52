"""Sentences that may name people. As plain text they name nobody; `governance.masking` decides who may be named.

A part without names is a literal of the code, or declared as plain: the type checker accepts nothing else.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import LiteralString, NamedTuple, NewType, TypeAlias, Union

from ctcore.model.node import Node

UNTOLD = "…"
Plain = NewType("Plain", str)
"""Text that names nobody: of steps, columns, references, digests, numbers."""


class NodeName(NamedTuple):
    """A node as it stands in a sentence."""

    node: Node
    text: str


class QuotedText(NamedTuple):
    """Recorded words of a person or a tool. They may name anybody."""

    text: str


Part: TypeAlias = Union[LiteralString, Plain, NodeName, QuotedText, "Words"]


@dataclass(frozen=True, init=False, repr=False, slots=True)
class Words:
    """A sentence in its parts. `str`, `format` and `repr` leave out every name and every quotation.

    A quoted sentence is a part of its own, so that it is masked by itself.
    """

    parts: tuple[Part, ...]

    def __init__(self, *parts: Part) -> None:
        object.__setattr__(self, "parts", parts)

    def __str__(self) -> str:
        return "".join(UNTOLD if isinstance(part, NodeName | QuotedText) else str(part) for part in self.parts)

    def __repr__(self) -> str:
        return f"Words({str(self)!r})"

    @property
    def is_plain(self) -> bool:
        """Whether it is one text without names, as after masking."""
        return len(self.parts) == 1 and type(self.parts[0]) is str

    def __bool__(self) -> bool:
        return any(self.parts)


def join_words(some: Iterable[Words], between: LiteralString = "; ") -> Words:
    """Several sentences in one line."""
    parts: list[Part] = []
    for one in some:
        parts += [between, one] if parts else [one]
    return Words(*parts)
