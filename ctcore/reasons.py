"""⑦ The words for why a node is not fresh, why it was made, and why it was not. The same everywhere."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "missing",
    "code",
    "parameters",
    "environment",
    "input",
    "member-added",
    "member-removed",
    "reference",
    "metadata",
    "bytes",
    "upstream",
]
State = Literal["fresh", "missing", "stale", "excluded", "running", "failed", "lost"]
Node = tuple[str, str]


@dataclass(frozen=True)
class Reason:
    """One cause with its evidence. `words` is what people read; `node` is where the cause lies. `sources` is how many
    nodes of this input have it."""

    kind: Kind
    words: str
    node: Node | None = None
    path: tuple[Node, ...] = ()
    sources: int = 1

    def __str__(self) -> str:
        return f"{self.kind}: {self.words}"


@dataclass(frozen=True)
class Verdict:
    """What is true of one node now. `reasons` has every cause, direct ones first."""

    asset: str
    partition: str
    state: State
    reasons: tuple[Reason, ...] = ()

    @property
    def node(self) -> Node:
        return (self.asset, self.partition)

    @property
    def why(self) -> str:
        """All reasons in one line."""
        return "; ".join(str(reason) for reason in self.reasons)

    @property
    def waits(self) -> bool:
        """An ancestor has to be made first."""
        return any(reason.kind == "upstream" for reason in self.reasons)


def name_of(node: Node) -> str:
    """`aligned_reads/HG00100-3815246`: how a node is written everywhere."""
    return f"{node[0]}/{node[1]}"


def short(digest: str | None) -> str:
    """The first digits of a digest."""
    return "nothing" if digest is None else digest[:8]


def shown(version: str) -> str:
    """A data version for people: `GRCh38 cbc8127e` for a reference, the first digits of a digest, a value as it is."""
    said, _, last = version.rpartition(" ")
    return f"{said} {short(last)}".strip() if re.fullmatch("[0-9a-f]{64}", last) else version


def changed(subject: str, old: str | None, new: str | None) -> str:
    return f"{subject} {short(old)} → {short(new)}"


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
    """A reference's data version is `version digest`: say which of the two changed."""
    if old is None or new is None:
        return f"{key} {old or 'not used'} → {new or 'not declared'}"
    old_version, _, old_digest = old.rpartition(" ")
    new_version, _, new_digest = new.rpartition(" ")
    said = [f"version {old_version} → {new_version}"] if old_version != new_version else []
    if old_digest != new_digest:
        said.append(changed("content", old_digest, new_digest))
    return f"{key} {' and '.join(said)}"
