"""The texts that one value of ct.toml may have in the catalog."""

import json
import math
from contextlib import suppress

from ctcore.store.digest import canonical_json


def texts_of(value: str) -> list[str]:
    """The JSON texts that a value of ct.toml may have in the catalog: as text, number or boolean."""
    texts = [canonical_json(value).decode()]
    try:
        number = json.loads(value)
    except ValueError:
        return texts
    if isinstance(number, bool):
        return [*texts, value]
    if isinstance(number, int | float) and math.isfinite(number):
        texts += sorted(_spellings(number) | {value})
    return texts


def _spellings(number: float) -> set[str]:
    """The canonical texts of one number: 30 and 30.0."""
    forms = {canonical_json(number).decode(), *(("0", "-0.0") if number == 0 else ())}
    if number == int(number):
        forms.add(str(int(number)))
    with suppress(OverflowError):
        forms |= {repr(float(number))} if float(number) == number else set()
    return forms
