"""Words of a sheet that stand for declared values: `XX` for F, `0` for normal, by `[sheet.values]` and `--value`."""

import datetime
import difflib
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from ctcore.model.column import Column
from ctcore.model.levels import Level
from ctcore.model.schema import Levels
from ctcore.model.values import CONTROL, convert_text, fit_word
from ctcore.sheet.columns import attribute_named, attributes_in, names_of_attributes
from ctcore.sheet.options import Options
from ctcore.sheet.rows import Rows

SHOWN = 20  # words of one column in a note
Words = Mapping[str, str]


def checked_values(said: Mapping[str, Mapping[str, object]], levels: Levels) -> tuple[dict[str, Words], list[str]]:
    """Column as level.name → the sheet's word → the declared value as text, and what is wrong with them.

    A value is written as in TOML or as in a sheet; a blank one makes the word blank.
    """
    found: dict[str, dict[str, str]] = {}
    problems: list[str] = []
    for name, words in said.items():
        named = attribute_named(name, levels)
        if named is None:
            problems.append(f"{name:.80}: {_unknown(name, levels)}")
            continue
        level, column = named
        mine = found.setdefault(f"{level}.{column.name}", {})
        for word, value in words.items():
            text = _text(value)
            problem = "one value is expected" if text is None else _problem(word.strip(), text, column)
            if problem is None and mine.setdefault(word.strip(), text or "") != text:
                problem = f"the word means {mine[word.strip()]!r:.80} too; keep one of them"
            if problem is not None:
                problems.append(f"{name:.80}: {word!r:.80} = {value!r:.80}: {problem}")
    return dict(found), problems


def _unknown(name: str, levels: Levels) -> str:
    known = names_of_attributes(levels)
    if several := [one for one in known if one.endswith(f".{name}")]:
        return f"it is declared at several levels; write one of {', '.join(several)}"
    near = difflib.get_close_matches(name, known, 1)
    return f"no such column of a level in ct.toml; {f'did you mean {near[0]}?' if near else 'declare it there'}"


def _text(value: object) -> str | None:
    """As it would stand in a sheet; None for what is not one value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.datetime) or not isinstance(value, str | int | float | datetime.date):
        return None
    return str(value).strip()


def _problem(word: str, text: str, column: Column) -> str | None:
    if not word:
        return "a blank cell has no value; `default` of the column gives new ones a value"
    if CONTROL.search(word + text):
        return "it has a control character, which no cell may have"
    problem = convert_text(text, column)[1] if text else None
    return problem and f"the value {problem.partition(';')[0]}"


def with_values(table: Rows, options: Options, levels: Levels) -> Rows:
    """The table with declared values in place of the words that stand for them, and a note a column that counts the
    cells of each word."""
    rows, notes = table.rows, list[str]()
    for position, level, column in attributes_in(table.header, levels, options, table.lenient):
        words = options.values.get(f"{level}.{column.name}")
        if not words:
            continue
        found = Counter(cells[position] for _, cells in rows if cells[position : position + 1])
        counts = {word: found[word] for word in words if found[word]}
        if counts:
            rows = [(line, _replaced(cells, position, words)) for line, cells in rows]
        if table.lenient:  # words that are fitted to the column anyhow need no note
            counts = {word: many for word, many in counts.items() if fit_word(word, column) != words[word]}
        if counts:
            notes.append(_note(table.header[position], counts, words))
    return replace(table, rows=rows, notes=(*table.notes, *notes))


def _replaced(cells: list[str], position: int, words: Words) -> list[str]:
    if position >= len(cells) or cells[position] not in words:
        return cells
    return [*cells[:position], words[cells[position]], *cells[position + 1 :]]


def _note(name: str, counts: Mapping[str, int], words: Words) -> str:
    said = [
        f"{word!r:.80} is {f'{words[word]!r:.80}' if words[word] else 'blank'} in {many:,} cell{'s' * (many != 1)}"
        for word, many in list(counts.items())[:SHOWN]
    ]
    return f"{name}: {', '.join(said)}{', …' * (len(counts) > SHOWN)}, by declaration"


def way_to_map(word: str, level: Level, column: Column, levels: Levels) -> str:
    """How to say which declared value a word is."""
    name = column.name if attribute_named(column.name, levels) == (level, column) else f"{level}.{column.name}"
    table = "[sheet.values] in ct.toml"
    if "=" in word or len(word) > 40 or not word.isprintable():
        return f"; {table} can say which of them it is"
    return f"; `--value {shlex.quote(f'{name}:{word}=')}ONE_OF_THEM`, or {table}, says which of them it is"
