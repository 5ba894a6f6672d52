"""① What each column of a sheet means: IDs, declared metadata, raw files, checksums, and names used elsewhere."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ctcore.schema import CHECKSUMS, Column, Levels
from ctcore.step import ENTITY_LEVELS, Level

# nf-core and sarek sheets call them so; `lane` tells apart the runs of one sample
ALIASES = {"patient": "patient_id", "sample": "specimen_id", "specimen": "specimen_id", "assay": "assay_id"}


@dataclass
class Columns:
    """Positions by meaning."""

    ids: dict[Level, int] = field(default_factory=dict)
    attributes: list[tuple[int, Level, Column]] = field(default_factory=list)
    files: list[tuple[int, Level, str]] = field(default_factory=list)
    checksums: list[tuple[int, Level, str, str]] = field(default_factory=list)
    lane: int | None = None


def read_columns(header: Sequence[str], blank: Sequence[bool], levels: Levels) -> tuple[Columns, list[str]]:
    """The columns of a header, and what is wrong with it. `blank[i]`: column i has no values."""
    found, problems = Columns(), list(_twice(header))
    meanings = _meanings(levels)
    for position, name in enumerate(header):
        known = ALIASES.get(name.lower(), name)
        kind = meanings.get(known) or meanings.get(known.lower())
        if not name:
            problems.append(f"row 1: column {position + 1} has no name; name it or remove it")
        elif kind is not None:
            _place(found, position, kind)
        elif name.lower() == "lane":
            found.lane = position
        elif not blank[position]:
            problems.append(_unknown(name, meanings))
    if "specimen" not in found.ids and not problems:
        problems.append("row 1: no column specimen_id (or sample); it says which specimen an assay is of")
    problems += _required(found, levels)
    return found, problems


Meaning = tuple[str, Level, str | Column | tuple[str, str]]


def _meanings(levels: Levels) -> dict[str, Meaning]:
    known: dict[str, Meaning] = {f"{level}_id": ("id", level, "") for level in ENTITY_LEVELS}
    bare: dict[str, list[Meaning]] = {}
    for level in ENTITY_LEVELS:
        for name, column in levels[level].columns.items():
            known[f"{level}.{name}"] = ("attribute", level, column)
            bare.setdefault(name, []).append(("attribute", level, column))
        for role in levels[level].files:
            known[role] = ("file", level, role)
            for algorithm in CHECKSUMS:
                known[f"{role}_{algorithm}"] = ("checksum", level, (role, algorithm))
    return {**{name: found[0] for name, found in bare.items() if len(found) == 1}, **known}


def _place(found: Columns, position: int, kind: Meaning) -> None:
    what, level, more = kind
    if what == "id":
        found.ids[level] = position
    elif what == "attribute" and isinstance(more, Column):
        found.attributes.append((position, level, more))
    elif what == "file":
        found.files.append((position, level, str(more)))
    elif isinstance(more, tuple):
        found.checksums.append((position, level, *more))


def _twice(header: Sequence[str]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for name in header:
        same = ALIASES.get(name.lower(), name)
        if same and same in seen:
            yield f"row 1: columns {seen[same]!r} and {name!r} mean the same; keep one of them"
        seen[same] = name


def _unknown(name: str, meanings: dict[str, Meaning]) -> str:
    near = difflib.get_close_matches(name, meanings, 1, 0.8)
    ambiguous = [known for known in meanings if known.endswith(f".{name}")]
    if ambiguous:
        return f"row 1: column {name!r} is declared at several levels; write one of {', '.join(ambiguous)}"
    hint = f"did you mean {near[0]!r}? Otherwise declare it" if near else "declare it"
    return f'row 1: unknown column {name!r}; {hint} in ct.toml: [levels.assay.columns.{name}] with type = "text"'


def _required(found: Columns, levels: Levels) -> Iterator[str]:
    there = {(level, column.name) for _, level, column in found.attributes}
    for level in ENTITY_LEVELS:
        for column in levels[level].columns.values():
            if column.required and (level, column.name) not in there:
                yield f"row 1: the required column {column.name!r} of {level} is missing; add it"
