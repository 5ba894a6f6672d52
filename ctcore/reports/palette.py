"""How a state looks, on a page and in a picture: a colour that the colour-blind tell apart, and a sign beside it."""

from ctcore.model.levels import Level
from ctcore.model.reasons import State

LOOKS: dict[State, tuple[str, str, str]] = {
    "fresh": ("#009e73", "✓", "true today"),
    "stale": ("#e69f00", "~", "something that it was made from differs"),
    "running": ("#56b4e9", "▸", "somebody works on it"),
    "failed": ("#d55e00", "✗", "its last call failed"),
    "lost": ("#000000", "!", "its bytes are gone or changed"),
    "missing": ("#cfd4dc", "·", "never made"),
    "excluded": ("#ffffff", "–", "may not be used, or lacks what the step needs"),
}
"""Colour, sign and meaning. The colours are those of Okabe and Ito (2008), of different lightness."""

WORST: tuple[State, ...] = ("lost", "failed", "stale", "running", "missing", "excluded", "fresh")
"""Of several states, which one stands for them: what most asks for a person comes first."""

ORDER: tuple[Level, ...] = ("assay", "specimen", "patient", "cohort")
"""Levels as people see them: in the direction of the data."""
