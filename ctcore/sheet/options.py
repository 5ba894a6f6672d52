"""① How a foreign sheet is to be read: its columns by other names, columns to pass over, a workbook's tab."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Options:
    """`map`: the sheet's name of a column → ours; `ignore`: names of columns to pass over; both in any case."""

    map: Mapping[str, str] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    tab: str | None = None

    def also(self, map: Mapping[str, str], ignore: tuple[str, ...], tab: str | None) -> "Options":
        """These options and others, which go before them."""
        mine = {name.lower(): ours for name, ours in self.map.items()}
        theirs = {name.lower(): ours for name, ours in map.items()}
        return Options({**mine, **theirs}, (*self.ignore, *ignore), tab or self.tab)

    def name_of(self, column: str) -> str | None:
        """What a column of the sheet is called here; None where it is to be passed over."""
        written = {column.lower(), column.lower().rpartition(".")[2]}  # a phenopacket's fields have their level
        if written & {name.lower() for name in self.ignore}:
            return None
        return next((ours for name, ours in self.map.items() if name.lower() in written), column)
