"""A pedigree (PED, as PLINK, GATK, peddy, seqr and 1000 Genomes write it): family, individual, parents, sex, phenotype.

The first six columns are those of PLINK's `.fam` (https://www.cog-genomics.org/plink/1.9/formats#fam). A header names
them in any order, and names the columns after them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from ctcore.model.values import control_characters
from ctcore.sheet.made_ids import filled, template_problem
from ctcore.sheet.rows import Rows

HEADER = ["family_id", "patient_id", "father_id", "mother_id", "sex", "phenotype"]
FAMILY, PATIENT, FATHER, MOTHER, SEX, PHENOTYPE = range(len(HEADER))
_FEWEST = 5  # columns of a row: older files have no phenotype
_NAMED = 3  # so many of our columns make a line a header
NOBODY = {"", "0", "-9", ".", "-", "?", "na", "n/a", "nan", "none", "null", "unknown"}
"""How files write that a parent, a sex or a phenotype is unknown; 0 and -9 are PLINK's, the others those of people."""
# Names of our columns in headers, without case, blanks and signs
_NAMES = {
    "family_id": "family familyid fam famid fid kindred kindredid pedigree pedigreeid",
    "patient_id": "individual individualid indid iid id name patient patientid person personid sample sampleid subject "
    "subjectid",
    "father_id": "dad dadid father fatherid pat paternal paternalid patid pid",
    "mother_id": "mat maternal maternalid matid mid mom momid mother motherid",
    "sex": "gender sex sexcode",
    "phenotype": "affected affectedstatus affection affectionstatus casecontrol disease diseasestatus pheno pheno1 "
    "phenotype status",
}
_MEANING = {name: HEADER.index(ours) for ours, names in _NAMES.items() for name in names.split()}
_SEX = {"1": "male", "m": "male", "male": "male", "xy": "male"}
_SEX |= {"2": "female", "f": "female", "female": "female", "xx": "female"}
_PHENOTYPE = {"1": "unaffected", "unaffected": "unaffected", "control": "unaffected"}
_PHENOTYPE |= {"2": "affected", "affected": "affected", "case": "affected"}
_OTHER_SEX = {"3", "other", "u", "unk"}  # PLINK: any code but 1 and 2 is an unknown sex

_WAY = "individuals that are numbered within families get IDs by --make 'patient_id={family_id}_{patient_id}'"

Line = tuple[int, list[str]]


@dataclass(frozen=True)
class _Layout:
    """Where in a line each column of HEADER stands (None: nowhere), and further columns with their names."""

    columns: tuple[int | None, ...] = tuple(range(len(HEADER)))
    others: Mapping[int, str] = field(default_factory=dict)
    fewest: int = _FEWEST  # cells of a line
    is_named: bool = False

    @classmethod
    def of(cls, cells: Sequence[str]) -> "_Layout | None":
        """That of a header, with or without a `#` before it; None if it is none."""
        names = [cells[0].lstrip("# "), *cells[1:]]
        places: dict[int, int] = {}
        for at, name in enumerate(names):
            if (meaning := _MEANING.get(re.sub(r"[^a-z0-9]", "", name.lower()))) is not None:
                places.setdefault(meaning, at)
        if len(places) < _NAMED or PATIENT not in places:
            return None
        others = {at: name for at, name in enumerate(names) if at not in places.values() and name}
        fewest = 1 + max(at for meaning, at in places.items() if meaning != PHENOTYPE)
        return cls(tuple(map(places.get, range(len(HEADER)))), others, fewest, True)

    def cells(self, line: Sequence[str]) -> tuple[list[str], list[str]]:
        """Those of HEADER, and the further ones; what is not there is blank."""
        mine = [line[at] if at is not None and at < len(line) else "" for at in self.columns]
        return mine, [line[at] if at < len(line) else "" for at in self.others]


def read_ped(text: str, patient: str | None = None) -> Rows:
    """The rows under HEADER and the header's further columns, with words for codes, and their problems.

    `patient`: the template of IDs where individuals are numbered within families; parents are named by it too.
    """
    rows, problems = list[Line](), list[str]()
    layout, more, sexes = _Layout(), Counter[int](), Counter[str]()
    lines = [(number, _split(line)) for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1)]
    for at, (number, cells) in enumerate((number, cells) for number, cells in lines if any(cells)):
        if at == 0 and (named := _Layout.of(cells)):
            layout = named
        elif cells[0].startswith("#"):
            continue
        elif len(cells) < layout.fewest:
            said = "family, individual, father, mother, sex and phenotype are expected"
            problems.append(f"row {number}: {len(cells)} columns; {'the header has more' if layout.is_named else said}")
        else:
            mine, others = layout.cells(cells)
            if is_nobody(mine[PATIENT]):
                said = repr(mine[PATIENT]) if mine[PATIENT] else "blank"
                problems.append(f"row {number}: the individual is {said}, which means nobody; write its ID")
                continue
            if mine[SEX].lower() not in {*_SEX, *NOBODY, *_OTHER_SEX}:
                sexes[mine[SEX]] += 1
            if not layout.is_named:
                more[number] = max(len(cells) - len(HEADER), 0)
            rows.append((number, [*_words(mine), *others]))
    header = [*HEADER, *layout.others.values()]
    if patient is not None:
        names = [name.lower() for name in header]
        if said := template_problem("patient_id", patient, names):
            problems.append(f"row 1: --make patient_id: {said}")
        else:
            rows = [(number, _renamed(cells, names, patient)) for number, cells in rows]
    problems += control_characters(rows, header)
    problems += check_pedigree(rows)
    notes = tuple(_notes(more, sexes))
    return Rows(header, rows, problems, lenient=True, notes=notes, made=("patient_id",))


def _split(line: str) -> list[str]:
    """Tabs keep blank cells, and blanks do not. A line with too few tabs is separated by both, as PLINK reads it."""
    cells = [cell.strip() for cell in line.split("\t")]
    return cells if len(cells) >= _FEWEST or not line.strip() else line.split()


def is_nobody(text: str) -> bool:
    """Whether an ID in a pedigree says that the person is unknown."""
    return text.lower() in NOBODY


def _words(cells: Sequence[str]) -> list[str]:
    family, patient, father, mother, sex, phenotype = cells
    parents = ["" if is_nobody(parent) else parent for parent in (father, mother)]
    said = "" if is_nobody(phenotype) else _PHENOTYPE.get(phenotype.lower(), phenotype)
    return ["" if is_nobody(family) else family, patient, *parents, _SEX.get(sex.lower(), "unknown"), said]


def _renamed(cells: list[str], names: Sequence[str], template: str) -> list[str]:
    mine = dict(zip(names, cells, strict=True))
    people = [filled(template, {**mine, "patient_id": who}) for who in cells[PATIENT : MOTHER + 1]]
    return [cells[FAMILY], *people, *cells[SEX:]]


def _notes(more: Counter[int], sexes: Counter[str]) -> Iterator[str]:
    """What was not taken, or not understood."""
    for text, many in sexes.items():
        rows = f"{many} row{'s' * (many != 1)}"
        said = "is not understood, and is taken as unknown; 1 and M are male, 2 and F female"
        yield f"sex: {text!r:.80} in {rows} {said}"
    if values := more.total():
        last, many = len(HEADER) + max(more.values()), f"{values} value{'s' * (values != 1)}"
        yield f"columns 7 to {last}: {many} not taken; a header line gives these columns names"


def check_pedigree(rows: Sequence[Line]) -> list[str]:
    """What of the rows cannot be, as problems with their rows."""
    return [*_contradictions(rows), *_circles(rows)]


def _contradictions(rows: Sequence[Line]) -> Iterator[str]:
    """An individual twice, a person as their own parent, a female father."""
    first: dict[str, tuple[int, str]] = {}
    for line, (family, patient, *_) in rows:
        before, of = first.setdefault(patient, (line, family))
        if before == line:
            continue
        if family != of and family and of:
            said = (
                f"individual {patient!r:.80} of family {family!r:.80} is one of family {of!r:.80} in row {before} too"
            )
            yield f"row {line}: {said}; {_WAY}"
        else:
            yield f"row {line}: individual {patient!r:.80} stands in row {before} too; keep one of them"
    yield from _both_parents(rows)
    sexes = {cells[PATIENT]: cells[SEX] for _, cells in rows}
    for line, (_, patient, father, mother, *_) in rows:
        for role, parent, other in (("father", father, "female"), ("mother", mother, "male")):
            if parent and parent == patient:
                yield f"row {line}, column {role}_id: {patient!r:.80} is its own {role}; correct one of them"
            elif sexes.get(parent) == other:
                yield f"row {line}, column {role}_id: {parent!r:.80} is {other} in its own row; correct one of them"


def _both_parents(rows: Sequence[Line]) -> Iterator[str]:
    """One person as a father and as a mother. What their own row says of their sex is told elsewhere."""
    known = {cells[PATIENT] for _, cells in rows if cells[SEX] in ("male", "female")}
    first: dict[str, tuple[int, str]] = {}
    for line, (_, patient, father, mother, *_) in rows:
        for role, parent in (("father", father), ("mother", mother)):
            if not parent or parent == patient:
                continue
            before, other = first.setdefault(parent, (line, role))
            if other != role and parent not in known:
                there = "too" if before == line else f"and a {other} in row {before}"
                yield f"row {line}, column {role}_id: {parent!r:.80} is a {role} {there}; correct one of them"


def _circles(rows: Sequence[Line]) -> Iterator[str]:
    """A person among their own ancestors, by way of others."""
    lines = {cells[PATIENT]: line for line, cells in rows}
    if len(lines) < len(rows):  # an ID of two people would close circles that there are not
        return
    parents = {cells[PATIENT]: {*cells[FATHER : MOTHER + 1]} - {"", cells[PATIENT]} for _, cells in rows}
    people = circle_in(parents)
    if not people:
        return
    first = min(range(len(people)), key=lambda at: lines[people[at]])  # it begins anywhere
    yield f"row {lines[people[first]]}: {circle_in_words([*people[first:], *people[:first]])}"


def circle_in(parents: Mapping[str, Iterable[str]]) -> list[str]:
    """People of whom each is a parent of the next one, and the last one of the first; none where there is no circle."""
    try:
        TopologicalSorter(parents).prepare()
    except CycleError as error:
        return error.args[1][:-1]
    return []


def circle_in_words(people: Sequence[str]) -> str:
    """A circle of parents, and the way out."""
    chain = ", ".join(f"{one!r:.80} of {other!r:.80}" for one, other in pairwise([people[-1], *people]))
    return f"a circle of parents: {chain}; correct a parent of one of them"
