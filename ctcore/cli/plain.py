"""Text that is printed does nothing to who prints it."""

import re

MOVES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """What moves a terminal's cursor or turns the direction of a text is shown as its code; lines stay lines."""
    return MOVES.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)
