"""References in the catalog: the current content and every version so far. Rows are only added."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, select

from ctcore.catalog.engine import Writer, upsert
from ctcore.catalog.tables import artifact, edge, materialization, reference, reference_version
from ctcore.config.settings import Reference
from ctcore.model.reasons import members_text, reference_change
from ctcore.model.regions import version_on


@dataclass(frozen=True)
class ReferenceContent:
    """A reference's declaration and content at a look."""

    declared: Reference
    version: str
    digest: str
    size: int

    @property
    def row(self) -> dict[str, Any]:
        """As the catalog has it."""
        said = self.declared
        return {
            "key": said.key,
            "version": self.version,
            "kind": said.kind,
            "path": said.path,
            "digest": self.digest,
            "size": self.size,
        }

    def is_known(self, row: Any) -> bool:
        """Whether the catalog has exactly this."""
        return row is not None and (row.version, row.digest, row.path) == (
            self.version,
            self.digest,
            self.declared.path,
        )


def known_references(connection: Connection) -> dict[str, Any]:
    """The catalog's record of each reference, by key."""
    return {row.key: row for row in connection.execute(select(reference))}


def content_of(
    declared: Mapping[str, Reference], contents: Mapping[str, tuple[str, int]], rows: Mapping[str, Any]
) -> list[ReferenceContent]:
    """What was looked at, by digest and size. A region has the version of what it lies on; where that was never seen,
    the region is left out. `rows` are those of the catalog."""
    found: dict[str, ReferenceContent] = {}
    # Regions last: their version is made of the version of what they lie on.
    for key in sorted(contents, key=lambda key: declared[key].on is not None):
        said, (digest, size) = declared[key], contents[key]
        version: str | None = said.version
        if said.on is not None:
            below: Any = found.get(said.on) or rows.get(said.on)
            version = version_on(said.on, below.version, below.digest) if below is not None else None
        if version is not None:
            found[key] = ReferenceContent(said, version, digest, size)
    return list(found.values())


Members = Callable[[str, str], Sequence[str]]
"""Which paths of a folder differ between two digests; none of a file."""


def record(
    writer: Writer, seen: Iterable[ReferenceContent], why: str | None = None, members: Members = lambda _old, _new: ()
) -> list[str]:
    """Make these what the references are now. Returns in words what changed; what is new is no change."""
    before, changes = known_references(writer.connection), list[str]()
    number = writer.execute(select(func.max(reference_version.c.number))).scalar() or 0
    for one in seen:
        old, row = before.get(one.declared.key), one.row
        if one.is_known(old):
            continue
        number += 1
        changes += changes_of([one], before, members)
        upsert(writer, reference, [row])
        told = {"at": writer.at, "actor": writer.actor, "reason": why}
        writer.insert(reference_version, [{"number": number, **row, **told}])
        was = _version_of(old)
        reason = {} if why is None else {"reason": why}
        writer.event("reference", f"reference/{one.declared.key}", {**row, "old": was, **reason})
    return changes


def changes_of(
    seen: Iterable[ReferenceContent], rows: Mapping[str, Any], members: Members = lambda _old, _new: ()
) -> list[str]:
    """In words, how these differ from what the catalog has."""
    compared = [(one, rows.get(one.declared.key)) for one in seen]
    return [
        f"reference/{_changed(one, _version_of(old), old.path)}{members_text(members(old.digest, one.digest))}"
        for one, old in compared
        if old is not None
    ]


def _version_of(row: Any) -> str | None:
    return None if row is None else f"{row.version} {row.digest}"


def _changed(one: ReferenceContent, was: str | None, path: str) -> str:
    now_is = f"{one.version} {one.digest}"
    if was == now_is:
        return f"{one.declared.key} path {path} → {one.declared.path}"
    return reference_change(one.declared.key, was, now_is)


@dataclass(frozen=True)
class Version:
    """One version of a reference: since when, by whom and why, and until when; None: it is that of today."""

    key: str
    version: str
    kind: str
    path: str
    digest: str
    size: int
    at: str
    actor: str
    reason: str | None
    until: str | None

    @property
    def data_version(self) -> str:
        """As the ledger's edges have it."""
        return f"{self.version} {self.digest}"


def history(connection: Connection, key: str | None = None) -> dict[str, list[Version]]:
    """All versions that there ever were, by key; the last one first."""
    rows = select(reference_version).order_by(reference_version.c.key, reference_version.c.number.desc())
    found: dict[str, list[Version]] = {}
    for row in connection.execute(rows if key is None else rows.where(reference_version.c.key == key)).mappings():
        listed = found.setdefault(row["key"], [])
        said: Mapping[str, Any] = {name: row[name] for name in Version.__dataclass_fields__ if name != "until"}
        listed.append(Version(**said, until=listed[-1].at if listed else None))
    return found


@dataclass(frozen=True)
class VersionUse:
    """With one version of a reference: how many nodes are as they were made with it, and how many makings there are."""

    nodes: int
    makings: int


def uses(connection: Connection, key: str | None = None) -> dict[str, dict[str, VersionUse]]:
    """By key, and by data version, from the ledger."""
    made = materialization.c
    current = and_(
        artifact.c.asset == made.asset, artifact.c.partition == made.partition, artifact.c.materialization == made.id
    )
    mine = edge.c.asset == "reference" if key is None else and_(edge.c.asset == "reference", edge.c.partition == key)
    rows = connection.execute(
        select(edge.c.partition, edge.c.version, func.count(artifact.c.asset), func.count())
        .select_from(edge.join(materialization, made.id == edge.c.materialization).outerjoin(artifact, current))
        .where(mine)
        .group_by(edge.c.partition, edge.c.version)
    )
    found: dict[str, dict[str, VersionUse]] = {}
    for name, version, nodes, makings in rows:
        found.setdefault(name, {})[version] = VersionUse(nodes, makings)
    return found
