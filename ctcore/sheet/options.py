"""How a foreign sheet is to be read: other names of columns, columns to pass over, IDs to make, other words for values,
a tab."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

IN_BRACES = re.compile(r"\{([^{}]*)\}")
"""A column in a template of an ID."""
STEM = ".stem"
"""Behind a column in a template: the name of its file, without folders and endings."""
EVERY = "*"
"""In `ignore`: every column that is not declared is passed over, and counted."""


@dataclass(frozen=True)
class Options:
    """`map`: the sheet's name of a column → ours; `ignore`: names of columns to pass over; both in any case.

    `blank`: words of cells that stand for nothing. `make`: an ID's column → the template that it is made by, with other
    columns' names in braces. `values`: level.column → the sheet's word → the declared value. `checksums`: lists of
    checksums of the sheet's files. `split`: what separates several files in one cell.
    """

    map: Mapping[str, str] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    tab: str | None = None
    make: Mapping[str, str] = field(default_factory=dict)
    blank: tuple[str, ...] = ()
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    checksums: tuple[Path, ...] = ()
    split: str | None = None

    def also(self, said: "Options") -> "Options":
        """These options and others, which go before them."""
        mine = {name.lower(): ours for name, ours in self.map.items()}
        theirs = {name.lower(): ours for name, ours in said.map.items()}
        columns = dict.fromkeys((*self.values, *said.values))
        return Options(
            map={**mine, **theirs},
            ignore=(*self.ignore, *said.ignore),
            tab=said.tab or self.tab,
            make={**self.make, **said.make},
            blank=(*self.blank, *said.blank),
            values={name: {**self.values.get(name, {}), **said.values.get(name, {})} for name in columns},
            checksums=(*self.checksums, *said.checksums),
            split=said.split or self.split,
        )

    def name_of(self, column: str) -> str | None:
        """Our name for a column of the sheet; None if it is ignored."""
        written = {column.lower(), column.lower().rpartition(".")[2]}  # a phenopacket's fields have their level
        if written & {name.lower() for name in self.ignore}:
            return None
        return next((ours for name, ours in self.map.items() if name.lower() in written), column)


def columns_of(template: str) -> list[str]:
    """The columns that a template of an ID names, in small letters; `{fastq_1.stem}` names fastq_1."""
    return [name.strip().lower().removesuffix(STEM) for name in IN_BRACES.findall(template)]
