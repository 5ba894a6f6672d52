"""The levels of a cohort, from patients down to assays, and words for a number of them."""

from typing import Literal, get_args

Level = Literal["patient", "specimen", "assay", "cohort"]
LEVELS: tuple[Level, ...] = get_args(Level)
ENTITY_LEVELS: tuple[Level, ...] = ("patient", "specimen", "assay")


def count_text(number: int, level: str) -> str:
    """`1 patient`, `2 patients`."""
    return f"{number:,} {level}{'s' * (number != 1)}"
