"""What several commands say of a damaged catalog, with nobody named who is not to be seen."""

import click

from ctcore.governance.masking import WITHHELD, Mask
from ctcore.model.node import Node, name_of


def finding_in_words(seen: Mask, words: str) -> str:
    where, cut, what = words.partition(": ")
    return f"{place_in_words(seen, where)}{cut}{what}" if seen.names_hidden(where) else seen.text(words)


def place_in_words(seen: Mask, place: str) -> str:
    """A row is told without its owner where nobody sees them: by its number or, where that names them, by its table."""
    row = place.partition(" (")[0]
    shown = next((one for one in (row, row.partition(" ")[0]) if not seen.names_hidden(one)), None)
    return place if not seen.names_hidden(place) else WITHHELD if shown is None else f"{shown} ({WITHHELD})"


def show_cycle(cycle: list[Node]) -> None:
    if cycle:
        click.echo(f"the catalog is damaged: {' ← '.join(map(name_of, cycle))} goes round in a circle", err=True)
