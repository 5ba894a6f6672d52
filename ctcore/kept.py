"""② What is known of the references: what each one is, every version of it, what was made with which, and which of the
files are still there."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ctcore.digest import Signature
from ctcore.files import Memory
from ctcore.project import Project
from ctcore.references import Use, Version, history, uses

File = Literal["there", "there, not read since", "replaced", "gone"]


@dataclass(frozen=True)
class Listed:
    """A reference of today or of former days, with its versions, the last one first, and what was made with each.

    `nodes` were made with today's version, `others` with another one.
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
    uses: list[Use]


def listed(project: Project, key: str | None = None) -> list[Listed]:
    """Every reference that is declared, and then those that were; or one of them."""
    with project.catalog.read() as connection:
        past, used = history(connection, key), uses(connection, key)
    declared = project.settings.references
    keys = [name for name in {**declared, **past} if key in (None, name)]
    return [_listed(project, name, past.get(name, []), used.get(name, {})) for name in keys]


def _listed(project: Project, key: str, versions: list[Version], used: dict[str, Use]) -> Listed:
    declared = project.settings.references.get(key)
    said = declared or versions[0]
    now = used.get(versions[0].data_version, Use(0, 0)).nodes if versions else 0
    return Listed(
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
        uses=[used.get(one.data_version, Use(0, 0)) for one in versions],
    )


def kept(project: Project, versions: Iterable[Version]) -> list[File]:
    """Whether the file of each version is still there, with that content; nothing is read for it."""
    listing = list(versions)
    seen: dict[str, Signature] = {}
    for path in {str(project.absolute(one.path)) for one in listing}:
        try:
            seen[path] = Signature.of(path)
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
