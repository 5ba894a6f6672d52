"""References with all their versions, the nodes made with each, and which of their files still exist."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ctcore.intake.raw_files import Memory
from ctcore.intake.references import Version, VersionUse, history, uses
from ctcore.project import Project
from ctcore.store.digest import Signature
from ctcore.store.folder_content import signature_at

File = Literal["there", "there, not read since", "replaced", "gone"]


@dataclass(frozen=True)
class ReferenceHistory:
    """A current or former reference: its versions, the latest first, and the nodes made with each.

    `nodes` used today's version, `others` another one.
    """

    key: str
    version: str
    kind: str
    path: str
    digest: str | None
    on: str | None
    declared: bool
    nodes: int
    others: int
    versions: list[Version]
    uses: list[VersionUse]


def reference_histories(project: Project, key: str | None = None) -> list[ReferenceHistory]:
    """All declared references and then former ones; or one of them."""
    with project.catalog.read() as connection:
        past, used = history(connection, key), uses(connection, key)
    declared = project.settings.references
    keys = [name for name in {**declared, **past} if key in (None, name)]
    return [_listed(project, name, past.get(name, []), used.get(name, {})) for name in keys]


def _listed(project: Project, key: str, versions: list[Version], used: dict[str, VersionUse]) -> ReferenceHistory:
    declared = project.settings.references.get(key)
    said = declared or versions[0]
    now = used.get(versions[0].data_version, VersionUse(0, 0)).nodes if versions else 0
    return ReferenceHistory(
        key=key,
        version=said.version,
        kind=said.kind,
        path=said.path,
        digest=versions[0].digest if versions else None,
        on=declared.on if declared else None,
        declared=declared is not None,
        nodes=now,
        others=sum(one.nodes for one in used.values()) - now,
        versions=versions,
        uses=[used.get(one.data_version, VersionUse(0, 0)) for one in versions],
    )


def kept_files(project: Project, versions: Iterable[Version]) -> list[File]:
    """Whether each version's file still exists with its content, judged without reading."""
    listing = list(versions)
    seen: dict[str, Signature] = {}
    for path in {str(project.absolute(one.path)) for one in listing}:
        try:
            seen[path] = signature_at(path)
        except OSError:
            continue
    known = Memory(project).lookup(seen)
    found: list[File] = []
    for one in listing:
        path = str(project.absolute(one.path))
        if path not in seen:
            found.append("gone")
        elif seen[path].size != one.size or known.get(path, one.digest) != one.digest:
            found.append("replaced")
        else:
            found.append("there" if path in known else "there, not read since")
    return found
