"""The words for why a node is not fresh, why it was made, and why it was not. The same everywhere."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ctcore.model.masked_text import NodeName, Plain, QuotedText, Words, join_words
from ctcore.model.node import Node, name_of
from ctcore.model.regions import lies_on
from ctcore.store.digest import canonical_json, digest_text, digest_value

Kind = Literal[
    "missing",
    "code",
    "parameters",
    "environment",
    "input",
    "member-added",
    "member-removed",
    "member-role",
    "reference",
    "metadata",
    "bytes",
    "upstream",
    "excluded",
]
State = Literal["fresh", "missing", "stale", "excluded", "running", "failed", "lost"]


MADE_ELSEWHERE = "made elsewhere"
"""How the reason for a making begins that ct only adopted."""


@dataclass(frozen=True)
class Reason:
    """One cause with its evidence. `words` is what people read, once the mask has told it; `node` is where the cause
    lies.

    What differs, in full, by kind:
    - `code`: digests. `parameters`, `environment`: canonical JSON of the members that differ (`differing_members`).
      These three have neither node nor input: their evidence follows from the recipe used and that of today alone.
    - `input`, `reference`, `member-added`, `member-removed`: the input's name, its node, its data versions;
      None where it was not given then, is not given today, or (new) is not made.
    - `member-role`: the column, the member, and its role as canonical JSON, then and today.
    - `metadata`: the column and whose it is; of the values only digests (`private_digest`): they are personal data.
    - `bytes`: the file as `input`, and its problem as `new`.
    - `excluded`: `node` is the patient, specimen or assay that may not be used.
    - `upstream`: the input through which the root cause comes, which is `node`; `path` leads there; `sources` is how
      many nodes of this input are not fresh.
    """

    kind: Kind
    words: Words
    node: Node | None = None
    path: tuple[Node, ...] = ()
    input: str | None = None
    old: str | None = None
    new: str | None = None
    sources: int = 1

    def __str__(self) -> str:
        """The text for anybody; before masking, without names."""
        return f"{self.kind}: {self.words}"

    def __repr__(self) -> str:
        return f"Reason({str(self)!r})"

    @property
    def sentence(self) -> Words:
        """The kind and the words, for masking or quoting."""
        return Words(Plain(self.kind), ": ", self.words)

    @cached_property
    def evidence(self) -> str:
        """The identity of the difference, independent of the words: kind, input, node, old and new."""
        node = None if self.node is None else list(self.node)
        return digest_value("ct.evidence.v1", [self.kind, self.input, node, self.old, self.new])


@dataclass(frozen=True)
class Verdict:
    """The state of one node now. `reasons` has every cause, direct ones first, and `kinds` their kinds.

    `waived` are the accepted ones.
    """

    asset: str
    partition: str
    state: State
    reasons: Sequence[Reason] = ()
    kinds: tuple[Kind, ...] = ()
    waived: tuple[Reason, ...] = ()

    def __post_init__(self) -> None:
        if not self.kinds:
            object.__setattr__(self, "kinds", tuple(dict.fromkeys(reason.kind for reason in self.reasons)))

    @property
    def node(self) -> Node:
        return (self.asset, self.partition)

    @property
    def why(self) -> str:
        """All reasons in one line; before masking, without names."""
        return "; ".join(str(reason) for reason in self.reasons)

    @property
    def sentence(self) -> Words:
        """All reasons, for masking or quoting."""
        return join_words(reason.sentence for reason in self.reasons)

    @property
    def waits(self) -> bool:
        """An ancestor has to be made first."""
        return "upstream" in self.kinds

    @property
    def only_waits(self) -> bool:
        """The node has no cause of its own: only an input is about to change."""
        return self.kinds == ("upstream",)


def short_digest(digest: str | None) -> str:
    """The first digits of a digest."""
    return "nothing" if digest is None else digest[:8]


def version_text(version: str) -> str:
    """A data version for people: `GRCh38 cbc8127e` for a reference, the first digits of a digest, a value unchanged."""
    said, _, last = version.rpartition(" ")
    return f"{_below(said)} {short_digest(last)}".strip() if re.fullmatch("[0-9a-f]{64}", last) else version


def node_text(node: Node) -> NodeName:
    """A node in a sentence."""
    return NodeName(node, name_of(node))


def change_text(subject: str, old: str | None, new: str | None) -> str:
    return f"{subject}{_became(old, new)}"


def input_change(name: str, source: Node, old: str | None, new: str | None) -> Words:
    """`reads (aligned_reads/A1) 3f2a → 77c0`."""
    return Words(Plain(f"{name} ("), node_text(source), Plain(f"){_became(old, new)}"))


def _became(old: str | None, new: str | None) -> str:
    return f" {short_digest(old)} → {short_digest(new)}"


def code_change(step: str, old: str, new: str, names: Sequence[str]) -> Words:
    """The changed parts of the code by name, as far as they are known."""
    said = change_text(step, old, new)
    if not names or list(names) == [step]:
        return Words(Plain(said))
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return Words(Plain(f"{shown} ({said})"))


def private_digest(version: str | None) -> str | None:
    """A digest that identifies a metadata value without showing it."""
    return None if version is None else digest_text(version)


def role_change(member: Node, old: str | None, new: str | None) -> Words:
    """Roles are those of the sheet, as canonical JSON: text is shown without its quotes."""
    return Words(node_text(member), " ", QuotedText(role_text(old)), " → ", QuotedText(role_text(new)))


def role_text(role: str | None) -> str:
    """A role as shown and recorded; blank if the sheet has none."""
    value = None if role is None else json.loads(role)
    return "blank" if value is None else value if isinstance(value, str) else canonical_json(value).decode()


def differing_members(mapping: Mapping[str, object], other: Mapping[str, object]) -> str:
    """Canonical JSON of those members of a mapping that are not the same in another one."""
    return canonical_json({name: value for name, value in mapping.items() if other.get(name, ...) != value}).decode()


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    """The members of two mappings that differ: `pysam 0.23 → 0.24, min_qual 20.0 → 30.0`."""
    return ", ".join(
        f"{name} {_value(old, name)} → {_value(new, name)}"
        for name in sorted({*old, *new})
        if old.get(name, ...) != new.get(name, ...)
    )


def _value(mapping: Mapping[str, object], name: str) -> str:
    if name not in mapping:
        return "absent"
    value = mapping[name]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def reference_change(key: str, old: str | None, new: str | None) -> str:
    """A reference's data version is `version digest`: report which of the two changed. A region's version may be the
    data version of its reference."""
    if old is None or new is None:
        return f"{key} {_whole(old) or 'not used'} → {_whole(new) or 'not declared'}"
    old_version, _, old_digest = old.rpartition(" ")
    new_version, _, new_digest = new.rpartition(" ")
    said = [change_text("content", old_digest, new_digest)] if old_digest != new_digest else []
    if old_version != new_version:
        was, now = lies_on(old_version), lies_on(new_version)
        if was is not None and now is not None and was[0] == now[0]:
            said.append(f"on {reference_change(was[0], was[1], now[1])}")
        else:
            said.insert(0, f"version {_below(old_version)} → {_below(new_version)}")
    return f"{key} {' and '.join(said)}"


def members_text(names: Sequence[str]) -> str:
    """Which paths of a folder changed, the first ones; empty where it is not known."""
    return f" ({', '.join(names[:5])}{', …' * (len(names) > 5)})" if names else ""


def _below(version: str) -> str:
    """A version; if it is that of a region's reference, with the first digits of the reference's digest."""
    below = lies_on(version)
    return version if below is None else f"on {below[0]} {version_text(below[1])}"


def _whole(version: str | None) -> str | None:
    """A whole data version; of a region's reference, the first digits suffice."""
    if version is None:
        return None
    said, _, digest = version.rpartition(" ")
    return f"{_below(said)} {digest}"
