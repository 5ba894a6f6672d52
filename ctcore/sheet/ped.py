"""① A pedigree (PED, as plink and GATK read it): family, individual, father, mother, sex, phenotype → patients."""

import re
from collections.abc import Iterator

from ctcore.sheet.values import control_characters

HEADER = ["family_id", "patient_id", "father_id", "mother_id", "sex", "phenotype"]
_SEX = {"1": "male", "2": "female"}
_PHENOTYPE = {"1": "unaffected", "2": "affected", "0": "", "-9": "", "": ""}

Line = tuple[int, list[str]]


def read_ped(text: str) -> tuple[list[Line], list[str]]:
    """Rows under HEADER, in words, and what is wrong with them. 0 is no parent, and 0 or -9 no phenotype."""
    rows: list[Line] = []
    problems: list[str] = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        cells = re.split(r"\t| +", line.strip()) if line.strip() else []
        if (
            not cells
            or cells[0].startswith("#")
            or (number == 1 and cells[0].lower() in ("fid", "family_id", "family"))
        ):
            continue
        if len(cells) < 5:
            said = "family, individual, father, mother, sex and phenotype are expected"
            problems.append(f"row {number}: {len(cells)} columns; {said}")
            continue
        if cells[1] == "0":
            problems.append(f"row {number}: the individual is '0', which stands for nobody; give it its ID")
            continue
        rows.append((number, _words(cells)))
    problems += control_characters(rows, HEADER)
    problems += _contradictions(rows)
    return rows, problems


def _words(cells: list[str]) -> list[str]:
    family, patient, father, mother, sex = cells[:5]
    said = cells[5] if len(cells) > 5 else ""
    parents = ["" if parent == "0" else parent for parent in (father, mother)]
    return ["" if family == "0" else family, patient, *parents, _SEX.get(sex, "unknown"), _PHENOTYPE.get(said, said)]


def _contradictions(rows: list[Line]) -> Iterator[str]:
    """Somebody twice, somebody's own parent, a father who is female."""
    first = {}
    for line, (_, patient, *_rest) in rows:
        if first.setdefault(patient, line) != line:
            yield f"row {line}: individual {patient!r:.80} stands in row {first[patient]} too; keep one of them"
    sexes = {patient: sex for _, (_, patient, _, _, sex, _) in rows}
    for line, (_, patient, father, mother, _, _) in rows:
        for role, parent, other in (("father", father, "female"), ("mother", mother, "male")):
            if parent and parent == patient:
                yield f"row {line}, column {role}_id: {patient!r:.80} is its own {role}; correct one of them"
            elif sexes.get(parent) == other:
                yield f"row {line}, column {role}_id: {parent!r:.80} is {other} in its own row; correct one of them"
