"""The meaning of each column of a sheet: IDs, declared metadata, raw files, checksums, and names used elsewhere."""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ctcore.model.column import Column
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.model.schema import CHECKSUMS, COLUMN_NAME, Levels
from ctcore.sheet.options import EVERY, Options

# nf-core and sarek sheets call them so; `lane` tells apart the runs of one sample
ALIASES = {"patient": "patient_id", "sample": "specimen_id", "specimen": "specimen_id", "assay": "assay_id"}
LANE = "lane"
# fields of other formats, and how they may be declared too
SHORTER = {"family_id": "family", "father_id": "father", "mother_id": "mother", "phenotype": "affected"}


@dataclass
class SheetColumns:
    """Positions by meaning."""

    ids: dict[Level, int] = field(default_factory=dict)
    attributes: list[tuple[int, Level, Column]] = field(default_factory=list)
    files: dict[str, tuple[int, Level]] = field(default_factory=dict)
    checksums: list[tuple[int, Level, str, str]] = field(default_factory=list)
    lane: int | None = None
    has_lane: bool = False  # also where it is blank
    passed_over: list[int] = field(default_factory=list)

    def is_about(self, *levels: Level) -> bool:
        """Whether a column belongs to one of these levels."""
        owners = {*self.ids, *(level for _, level, _ in self.attributes), *(level for _, level in self.files.values())}
        return bool(owners & set(levels)) or ("assay" in levels and self.has_lane)


Meaning = tuple[str, Level, str | Column | tuple[str, str]]


def read_columns(
    header: Sequence[str], blank: Sequence[bool], levels: Levels, options: Options, lenient: bool = False
) -> tuple[SheetColumns, list[str]]:
    """The columns of a header, and its problems. `blank[i]`: column i has no values.

    Of two columns with the same meaning the first one counts; a blank column without a meaning is ignored. In a format
    with fields of its own (`lenient`), and by `--ignore '*'`, undeclared columns are skipped and counted.
    """
    found, problems = SheetColumns(), list[str]()
    meanings = _Meanings(levels, lenient)
    seen: dict[Meaning | str, int] = {}
    for position, written in enumerate(header):
        name = options.name_of(written)
        if name is None:
            continue
        known, meaning = ALIASES.get(name.lower(), name), meanings.of(name)
        is_lane = name.lower() == LANE and not blank[position]
        found.has_lane |= name.lower() == LANE
        if meaning is None and (blank[position] or lenient or (EVERY in options.ignore and name.lower() != LANE)):
            found.passed_over += [] if blank[position] else [position]
            continue
        first = seen.setdefault(meaning or known.lower(), position)
        if not name:
            problems.append(f"row 1: column {position + 1} has no name; name it or remove it")
        elif position != first:
            problems.append(f"row 1: columns {header[first]!r:.80} and {written!r:.80} mean the same; keep one of them")
        elif meaning is None and not is_lane:
            problems.append(_unknown(written, name, meanings.by_name))
        else:
            found.lane = position if is_lane else found.lane
            _place(found, position, meaning)
    problems += [*_without_file(found), *_without_ids(found)]
    return found, problems


def known_names(levels: Levels) -> list[str]:
    """Every name that a column of a sheet may have, in small letters."""
    return [name.lower() for name in (*_meanings(levels), *ALIASES, LANE)]


def names_of_attributes(levels: Levels) -> list[str]:
    """Every name that a metadata column of a sheet may have."""
    return [name for name, (what, *_) in _meanings(levels).items() if what == "attribute"]


def attribute_named(name: str, levels: Levels) -> tuple[Level, Column] | None:
    """The metadata column of a name, as sheets may write it."""
    meaning = _Meanings(levels).of(name)
    return (meaning[1], meaning[2]) if meaning and isinstance(meaning[2], Column) else None


def attributes_in(
    header: Sequence[str], levels: Levels, options: Options, lenient: bool
) -> Iterator[tuple[int, Level, Column]]:
    """The metadata columns of a header, with their positions."""
    meanings = _Meanings(levels, lenient)
    for position, written in enumerate(header):
        name = options.name_of(written)
        meaning = None if name is None else meanings.of(name)
        if meaning is not None and isinstance(meaning[2], Column):
            yield position, meaning[1], meaning[2]


class _Meanings:
    """What our name of a column means, in any case."""

    def __init__(self, levels: Levels, lenient: bool = False) -> None:
        self.by_name, self.lenient = _meanings(levels), lenient
        self.folded = {name.lower(): meaning for name, meaning in self.by_name.items()}

    def of(self, name: str) -> Meaning | None:
        known = ALIASES.get(name.lower(), name)
        meaning = self.by_name.get(known) or self.folded.get(known.lower())
        if self.lenient and meaning is None:
            meaning = self.folded.get(SHORTER.get(known, known))
        return meaning


def _meanings(levels: Levels) -> dict[str, Meaning]:
    known: dict[str, Meaning] = {f"{level}_id": ("id", level, "") for level in ENTITY_LEVELS}
    bare: dict[str, list[Meaning]] = {}
    for level in ENTITY_LEVELS:
        for name, column in levels[level].columns.items():
            known[f"{level}.{name}"] = ("attribute", level, column)
            bare.setdefault(name, []).append(("attribute", level, column))
        for role in levels[level].roles:
            known[role] = ("file", level, role)
        for role in levels[level].files:
            for algorithm in CHECKSUMS:
                known[f"{role}_{algorithm}"] = ("checksum", level, (role, algorithm))
    return {**{name: found[0] for name, found in bare.items() if len(found) == 1}, **known}


def _place(found: SheetColumns, position: int, meaning: Meaning | None) -> None:
    if meaning is None:
        return
    what, level, more = meaning
    if what == "id":
        found.ids[level] = position
    elif isinstance(more, Column):
        found.attributes.append((position, level, more))
    elif isinstance(more, str):
        found.files[more] = (position, level)
    else:
        found.checksums.append((position, level, *more))


def _unknown(written: str, name: str, meanings: dict[str, Meaning]) -> str:
    where = f"row 1: unknown column {name!r:.80}"
    if written != name:
        near = difflib.get_close_matches(name.lower(), meanings, 1)
        hint = f"did you mean {near[0]!r}?" if near else "map it to an ID, a file or a declared column"
        return f"row 1: column {written!r:.80} is mapped to {name!r:.80}, which ct.toml does not declare; {hint}"
    ambiguous = [known for known in meanings if known.endswith(f".{name}")]
    if ambiguous:
        return f"row 1: column {name!r} is declared at several levels; write one of {', '.join(ambiguous)}"
    near = difflib.get_close_matches(name.lower(), [*meanings, *ALIASES, LANE], 1, 0.75)
    hint = f"did you mean {near[0]!r}? Otherwise " if near else ""
    if not re.fullmatch(COLUMN_NAME, name):
        return f"{where}; {hint}give it another name (--map THEIRS=OURS), or pass over it (--ignore COLUMN)"
    at = f"[levels.LEVEL.columns] {name:.80} = {{}}, at its level"
    return f"{where}; {hint}declare it in ct.toml ({at}), or pass over it (--ignore COLUMN)"


def _without_file(found: SheetColumns) -> Iterator[str]:
    for checksum in list(found.checksums):
        _, _, role, algorithm = checksum
        if role not in found.files:
            found.checksums.remove(checksum)
            yield f"row 1: column {role}_{algorithm} without a column {role}; add the files or remove it"


def _without_ids(found: SheetColumns) -> Iterator[str]:
    """A row must name its entity: a specimen, a patient alone, or an assay that is registered already."""
    if "specimen" in found.ids:
        return
    if not found.ids or ("patient" in found.ids and found.is_about("specimen", "assay")):
        yield "row 1: no column specimen_id (or sample); add it: it names the specimen of each assay"
    elif "assay" in found.ids and found.is_about("specimen"):
        yield "row 1: columns of a specimen, but no column specimen_id (or sample); add it"
