"""What is inside a person's raw files that are folders: each file's digest, by which a copy of it is known again, and
the listings that name these files."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import edge, entity, file, materialization, reference, reference_version
from ctcore.catalog.tombstones import is_purged
from ctcore.lineage.containment import Containment
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.project import Project
from ctcore.store.folder_content import (
    files_among,
    kept_listings,
    kept_members,
    listing_place,
    members_listed,
    try_contents,
)

MEMBERS = "raw_members"
"""Key in the body of an event `purge`: level/id role → digest → size, of the files in the person's raw folders."""

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class FolderListings:
    """The kept listings of folders, by digest. `own`: of the person, now or in a making, with a description; `others`:
    what others need; all else nobody has any more."""

    store: Path
    own: Mapping[str, str]
    others: Set[str]

    @property
    def theirs(self) -> dict[str, str]:
        """Only of the person."""
        return {digest: what for digest, what in self.own.items() if digest not in self.others}

    @property
    def unused(self) -> list[str]:
        """What nobody has any more; of the person too, as it was before."""
        return [one for one in kept_listings(self.store) if one not in self.others and one not in self.own]

    def places(self, digests: Iterable[str]) -> list[Path]:
        return [listing_place(self.store, one) for one in digests]

    def files(self) -> dict[str, dict[str, int]]:
        """What it is of → the files in it: digest → size."""
        found: dict[str, dict[str, int]] = {}
        for digest, what in self.own.items():
            found.setdefault(what, {}).update(file_sizes(kept_members(self.store, digest) or {}))
        return found

    def of_others(self, digests: Set[str]) -> set[str]:
        """Which of these files are in others' folders too."""
        return files_among(self.store, self.others, digests)


def file_sizes(members: Mapping[bytes, tuple[str, int]]) -> dict[str, int]:
    """Digest → size of each file that is not empty."""
    return {digest: size for digest, size in members.values() if size}


def folder_listings(project: Project, connection: Connection, found: Containment) -> FolderListings:
    """Whose the kept listings are."""
    kept = kept_listings(project.store.root)
    own, others = dict[str, str](), set[str]()
    if not kept:
        return FolderListings(project.store.root, own, others)
    made = materialization.c
    used = select(edge.c.version, edge.c.asset, edge.c.partition, edge.c.input)
    used = used.join(materialization, made.id == edge.c.materialization)
    used = used.where(edge.c.asset.in_(ENTITY_LEVELS), in_keys(edge.c.version, kept))
    theirs = (entity.c.level, entity.c.id)
    now = select(file.c.digest, *theirs, file.c.role).join(entity, entity.c.seq == file.c.entity)
    live = used.where(~is_purged())
    for query in (used, now.where(in_keys(file.c.digest, kept))):
        for digest, level, who, role in connection.execute(query):
            if (level, who) in found.own:
                own[digest] = f"{level}/{who} {role}"
    for query in (live, now.where(in_keys(file.c.digest, kept), entity.c.purged.is_(None))):
        others |= {digest for digest, level, who, _ in connection.execute(query) if (level, who) not in found.own}
    for table in (reference, reference_version):
        others |= set(connection.execute(select(table.c.digest).where(in_keys(table.c.digest, kept))).scalars())
    return FolderListings(project.store.root, own, others)


def files_to_know(
    project: Project, connection: Connection, person: Containment, rows: Iterable[Any]
) -> dict[str, dict[str, int]]:
    """The files in a person's raw folders, for the record of a purge; `rows`: their raw files in the catalog. A folder
    whose listing is lost is read."""
    listings = folder_listings(project, connection, person)
    found = {what: dict(sizes) for what, sizes in listings.files().items()}
    lost = {
        project.located(row.path): f"{row.level}/{row.id} {row.role}"
        for row in rows
        if row.digest not in listings.own and project.absolute(row.path).is_dir()
    }
    texts: dict[str, bytes] = {}
    read, _ = try_contents(lost, keep=texts.__setitem__)
    for place, (digest, *_) in read.items():
        found.setdefault(lost[place], {}).update(file_sizes(members_listed(texts[digest])))
    return {what: sizes for what, sizes in found.items() if sizes}
