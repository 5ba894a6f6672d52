"""The digests of raw files that a sheet names, checked against the sheet's checksums."""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from ctcore.errors import SheetError
from ctcore.intake.raw_files import Memory, keep_members
from ctcore.model.schema import folder_roles
from ctcore.project import Project
from ctcore.sheet.file_paths import FileClaim
from ctcore.sheet.parse import EntityRow, Sheet
from ctcore.store.digest import Signature, checksum_file, digest_seen, is_old
from ctcore.store.folder_content import try_seen_contents

Digests = Mapping[str, tuple[str, Signature]]
Claim = tuple[EntityRow, str, FileClaim]


def read_claimed(
    project: Project,
    sheet: Sheet,
    *,
    remember: bool = True,
    before_reading: Callable[[], None] = lambda: None,
    on_bytes: Callable[[int], None] | None = None,
) -> Digests:
    """The digest of every file of a sheet. SheetError if one does not match its checksum.

    Unchanged files are not read again. Digests are kept even if the sheet is refused: they are not part of the record,
    and reading a cohort again can take days.
    """
    claims = [
        (row, role, claim)
        for rows in sheet.entities.values()
        for row in rows.values()
        for role, claim in row.files.items()
    ]
    memory = Memory(project, remember=remember)
    folders = folder_roles(project.settings.levels)
    inside = [(row, role, one) for row, role, claim in claims for one in claim.members or () if one.checksums]
    of_files = [*(found for found in claims if found[1] not in folders), *inside]
    signatures = {claim.name: claim.seen for _, _, claim in of_files}
    digests = digest_seen(signatures, memory, before_reading=before_reading, on_bytes=on_bytes)
    trees = {claim.name: claim.seen for _, role, claim in claims if role in folders}
    if trees.keys() - memory.lookup(trees).keys():
        before_reading()
    keep = partial(keep_members, project) if remember else None
    digests |= _whole(*try_seen_contents(trees, memory, on_bytes, keep), claims, sheet)
    claims += inside
    problems: list[str] = []
    for algorithm in ("md5", "sha256", "blake3"):
        stated = [found for found in claims if algorithm in found[2].checksums]
        if not stated:
            continue
        wanted = {claim.name: digests[claim.name] for _, _, claim in stated}
        real = _checksums(project, algorithm, wanted, remember, before_reading)
        problems += [said for found in stated if (said := _differs(project, algorithm, found, real)) is not None]
    if problems:
        raise SheetError(str(sheet.path), problems)
    return digests


def _whole(read: Digests, unread: Mapping[str, str], claims: Iterable[Claim], sheet: Sheet) -> Digests:
    """What was read of folders. SheetError with those that could not be."""
    if unread:
        said = [f"row {row.row}, column {role}: {unread[one.name]}" for row, role, one in claims if one.name in unread]
        raise SheetError(str(sheet.path), said)
    return read


def _checksums(
    project: Project, algorithm: str, digests: Digests, remember: bool, before_reading: Callable[[], None]
) -> Mapping[str, str]:
    if algorithm == "blake3":
        return {path: digest for path, (digest, _) in digests.items()}
    memory = Memory(project, f"{algorithm}:", remember)
    began = time.time_ns()
    known = memory.lookup({path: seen for path, (_, seen) in digests.items()})
    unknown = [path for path in digests if path not in known]
    if unknown:
        before_reading()
    found = {path: checksum_file(path, algorithm) for path in unknown}
    settled = {
        path: (seen, found[path])
        for path, (_, seen) in digests.items()
        # The file was read twice, for its digest and for this: both must be of one state.
        if path in found and is_old(seen, began) and Signature.of(path) == seen
    }
    if settled:
        memory.remember(settled)
    return {**known, **found}


def _differs(project: Project, algorithm: str, found: Claim, real: Mapping[str, str]) -> str | None:
    row, role, claim = found
    said, is_now = claim.checksums[algorithm], real[claim.name]
    if said == is_now:
        return None
    if where := claim.listed.get(algorithm):
        named = f"{project.recorded(claim.name)} has the {algorithm} {is_now}, and {where} expects {said}"
        return f"row {row.row}, column {role}: {named}; fetch the file again, or correct the list"
    return (
        f"row {row.row}, column {role}_{algorithm}: {said[:12]}… is not the checksum of "
        f"{project.recorded(claim.name)} ({is_now[:12]}…); fetch the file again, or correct the sheet"
    )
