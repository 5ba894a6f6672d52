"""Make text safe to print on a terminal."""

import re

MOVES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_controls(text: str) -> str:
    """Replace characters that move a terminal's cursor or turn the text's direction by their codes. Line ends stay."""
    return MOVES.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)
