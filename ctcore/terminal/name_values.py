"""`NAME=VALUE` and `COLUMN:WORD=VALUE` on the command line."""

from collections.abc import Sequence

from ctcore.errors import Usage


def name_values(option: str, said: Sequence[str], blank: bool = False) -> dict[str, str]:
    """Names with their values; `blank`: there may be none."""
    pairs: dict[str, str] = {}
    for one in said:
        name, equals, value = one.partition("=")
        if not equals or not name.strip() or not (blank or value.strip()):
            example = '--map "Sample Name=specimen_id"' if option == "--map" else f"{option} sex=F"
            raise Usage(f"{option} {one}: a name, = and a value are expected, as in {example}")
        if name.strip() in pairs:
            raise Usage(f"{option} {name.strip()} is given twice; leave one of them out")
        pairs[name.strip()] = value.strip()
    return pairs


def word_values(option: str, said: Sequence[str]) -> dict[str, dict[str, str]]:
    """Words of sheets with the values that they stand for, by column; a blank value makes the word blank."""
    found: dict[str, dict[str, str]] = {}
    for one in said:
        (both, equals, value) = one.partition("=")
        column, _, word = (part.strip() for part in both.partition(":"))
        if not (equals and column and word):
            raise Usage(f"{option} {one}: a column, :, a word of the sheet, = and a value are expected, as in sex:XX=F")
        if word in found.setdefault(column, {}):
            raise Usage(f"{option} {column}:{word} is given twice; leave one of them out")
        found[column][word] = value.strip()
    return found
