"""Checksum lists of a delivery (`md5sum.txt`, `sha256sum`, BSD's form), matched with the files that a sheet names.

The forms are those of GNU coreutils (https://www.gnu.org/software/coreutils/manual/html_node/md5sum-invocation.html),
of BSD's `md5`, and of `openssl dgst`.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from ctcore.errors import SheetError
from ctcore.sheet.file_paths import FileClaim
from ctcore.sheet.rows import decode_text, refuse_others

LENGTHS = {"md5": 32, "sha256": 64, "blake3": 64}
"""Hexadecimal digits of a checksum."""
SHOWN = 10  # files in a note
_HEX = "[0-9A-Fa-f]{32,128}"
_GNU = re.compile(rf"(?P<odd>\\?)(?P<digest>{_HEX})(?: [ *]|\s+)(?P<name>.+)")
_BSD = re.compile(rf"(?P<odd>\\?)(?P<kind>[A-Za-z0-9-]+) ?\((?P<name>.+)\) ?= ?(?P<digest>{_HEX})")
_NAME_FIRST = re.compile(rf"(?P<odd>)(?P<name>.+?)\s+(?P<digest>{_HEX})")
_ALONE = re.compile(rf"(?P<digest>{_HEX})")
_KINDS = {"md5": "md5", "sha256": "sha256", "sha2-256": "sha256", "blake3": "blake3"}
_EXPECTED = "lines such as `DIGEST  FILE` or `MD5 (FILE) = DIGEST` are expected"
_ESCAPED = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}

Claim = tuple[int, str, FileClaim]
"""A file of a sheet, with the row of its entity and its column."""
Claims = Sequence[Claim]


@dataclass(frozen=True)
class _Entry:
    """One line of a list. `path` is absolute, and `name` as written."""

    where: str
    algorithm: str
    digest: str
    name: str
    path: str

    @property
    def parts(self) -> list[str]:
        return [part for part in self.name.replace("\\", "/").split("/") if part not in ("", ".")]


def add_listed_checksums(lists: Iterable[Path], claims: Claims, folder: Path) -> tuple[list[str], list[str]]:
    """Give the files of a sheet the checksums of lists: by path, and otherwise by name. Returns problems, and notes.

    `folder`: what files are named relative to.
    """
    problems, notes, named = list[str](), list[str](), set[str]()
    some = list(dict.fromkeys(lists))
    for path in some:
        entries, said = _read(path)
        problems += said
        if said:
            continue
        found, said = _matched(entries, claims, folder)
        problems += said
        if not found and not said and claims:
            problems.append(f"{path}: it names no file of the sheet; give the list of these files")
        for (line, role, claim), entry in found:
            named.add(claim.name)
            if (other := claim.checksums.setdefault(entry.algorithm, entry.digest)) != entry.digest:
                before = claim.listed.get(entry.algorithm, f"column {role}_{entry.algorithm}")
                problems.append(
                    f"row {line}, column {role}: {other} by {before}, and {entry.digest} by {entry.where}; "
                    "correct one of them"
                )
            claim.listed.setdefault(entry.algorithm, entry.where)
        if verified := len({claim.name for (_, _, claim), _ in found}):
            notes.append(f"{path}: {verified:,} file{'s' * (verified != 1)} of the sheet as it says")
        used = {entry.where for _, entry in found}
        others = [one.name for one in entries if one.where not in used]
        notes += _counted(f"{path} names", "that the sheet does not", others)
    if some:
        unnamed = [claim.name for _, _, claim in claims if claim.name not in named]
        notes += _counted(
            "the sheet names", "that no checksum list does", [os.path.relpath(one, folder) for one in unnamed]
        )
    return problems, notes


def _counted(begins: str, ends: str, files: Sequence[str]) -> Iterator[str]:
    if files:
        listed = ", ".join(f"{one:.200}" for one in files[:SHOWN]) + ", …" * (len(files) > SHOWN)
        yield f"{begins} {len(files):,} file{'s' * (len(files) != 1)} {ends}: {listed}"


def _read(path: Path) -> tuple[list[_Entry], list[str]]:
    """The lines of a list, and what is wrong with it."""
    try:
        refuse_others(path)
        text = decode_text(path)
    except SheetError as error:
        return [], [f"{path}: {said}" for said in error.problems]
    folder = path.absolute().parent.resolve()
    entries, problems = dict[tuple[str, str], _Entry](), list[str]()
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        where = f"{path}, line {number}"
        entry = _entry(line, where, path, folder)
        if isinstance(entry, str):
            problems.append(f"{where}: {entry}")
            continue
        before = entries.setdefault((entry.path, entry.algorithm), entry)
        if before.digest != entry.digest:
            said = f"{entry.name!r:.200} has another {entry.algorithm} in {before.where}; keep the right one"
            problems.append(f"{where}: {said}")
    if not entries and not problems:
        problems.append(f"{path}: it has no checksum; {_EXPECTED}")
    return list(entries.values()), problems


def _entry(line: str, where: str, path: Path, folder: Path) -> _Entry | str:
    """What a line says; a text is what is wrong with it."""
    said = _BSD.fullmatch(line.strip()) or _GNU.fullmatch(line.rstrip()) or _NAME_FIRST.fullmatch(line.strip())
    if said is None:
        if (alone := _ALONE.fullmatch(line.strip())) is None or path.suffix.lower()[1:] not in LENGTHS:
            return f"{line.strip()!r:.80} is no checksum with a file; {_EXPECTED}"
        name, digest, kind = path.stem, alone["digest"], path.suffix[1:]  # reads.fq.gz.md5 is of reads.fq.gz
    else:
        name, digest, kind = said["name"].strip(), said["digest"], said.groupdict().get("kind") or ""
        if said["odd"]:
            name = re.sub(r"\\[\\nr]", lambda one: _ESCAPED[one[0]], name)
    algorithm = _KINDS.get(kind.lower()) if kind else _by_length(digest, path)
    if algorithm is None or len(digest) != LENGTHS[algorithm]:
        known = "md5, sha256 and blake3 are read"
        return f"{digest!r:.140} is no {kind or 'checksum of a known kind'} ({len(digest)} digits); {known}"
    return _Entry(where, algorithm, digest.lower(), name, os.path.normpath(folder / name))


def _by_length(digest: str, path: Path) -> str | None:
    """b3sum writes as sha256sum does; its lists say so in their names."""
    long = "blake3" if re.search(r"blake3|b3", path.name.lower()) else "sha256"
    return {32: "md5", 64: long}.get(len(digest))


def _matched(entries: Sequence[_Entry], claims: Claims, folder: Path) -> tuple[list[tuple[Claim, _Entry]], list[str]]:
    """Each file with its lines: those of its path, or else those of its name that fit most of its folders."""
    by_path, by_name = defaultdict[str, list[_Entry]](list), defaultdict[str, list[_Entry]](list)
    here = {claim.name for _, _, claim in claims}
    for entry in entries:
        by_path[entry.path].append(entry)
        if entry.path not in here and entry.parts:
            by_name[entry.parts[-1]].append(entry)
    found = [(one, entry) for one in claims for entry in by_path.get(one[2].name, ())]
    by_their_name, problems = defaultdict[_Entry, list[Claim]](list), list[str]()
    owned = dict[_Entry, int]()  # how many parts of its path the file shares that has it
    for most, one, fits in _by_fit(claims, by_path, by_name):
        free = [entry for entry in fits if owned.get(entry, 0) <= most]
        if len({entry.digest for entry in free}) > 1:
            lines = ", ".join(f"{entry.where} ({entry.name:.200})" for entry in free[:SHOWN])
            problems.append(_ambiguous(one, os.path.relpath(one[2].name, folder), lines))
        elif free:
            by_their_name[free[0]].append(one)
            owned |= dict.fromkeys(free, most)
    for entry, some in by_their_name.items():
        names = dict.fromkeys(os.path.relpath(claim.name, folder) for _, _, claim in some)
        if len(names) > 1:
            problems.append(_ambiguous(some[0], f"{entry.where} ({entry.name:.200})", ", ".join([*names][:SHOWN])))
        found += [(one, entry) for one in some]
    return found, problems


def _by_fit(
    claims: Claims, by_path: Mapping[str, Sequence[_Entry]], by_name: Mapping[str, Sequence[_Entry]]
) -> list[tuple[int, Claim, list[_Entry]]]:
    """Files that no line has by its path, with the lines of one algorithm that fit best; the best fits first."""
    found = list[tuple[int, Claim, list[_Entry]]]()
    for one in claims if by_name else ():
        path = one[2].name
        named = by_name.get(os.path.basename(path), ()) if path not in by_path else ()
        for algorithm in LENGTHS:
            shared = [(_shared(entry, path), entry) for entry in named if entry.algorithm == algorithm]
            most = max((many for many, _ in shared), default=0)
            if most:
                found.append((most, one, [entry for many, entry in shared if many == most]))
    return sorted(found, key=lambda each: -each[0])


def _ambiguous(claim: Claim, what: str, may_be: str) -> str:
    line, role, _ = claim
    return f"row {line}, column {role}: {what} may be any of {may_be}; write paths in the list that tell them apart"


def _shared(entry: _Entry, path: str) -> int:
    """How many last parts of both paths are the same."""
    pairs = zip(reversed(entry.parts), reversed(path.split("/")), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
