"""IDs that are made from other columns of a sheet, by a template such as `{patient_id}_gDNA`."""

import re
from collections.abc import Mapping
from dataclasses import replace

from ctcore.model.levels import ENTITY_LEVELS
from ctcore.sheet.columns import ALIASES
from ctcore.sheet.options import IN_BRACES, STEM, Options, columns_of
from ctcore.sheet.rows import Rows

# of files of reads, alignments, variants and tables, and of their packings
_ENDINGS = re.compile(
    r"(\.(fastq|fq|u?bam|cram|sam|pod5|fast5|blow5|g?vcf|bcf|fasta|fa|bed|tsv|csv|txt|gz|bgz|bz2|xz|zst|spring|ora))+$",
    re.IGNORECASE,
)
IDS = tuple(f"{level}_id" for level in ENTITY_LEVELS)


def filled(template: str, cells: Mapping[str, str]) -> str:
    """The template with these cells in place of the columns' names; blank where one of them is blank."""
    if not all(cells[name] for name in columns_of(template)):
        return ""
    return IN_BRACES.sub(lambda found: _cell(found[1].strip().lower(), cells), template)


def _cell(name: str, cells: Mapping[str, str]) -> str:
    column = name.removesuffix(STEM)
    if column == name:
        return cells[name]
    return _ENDINGS.sub("", re.split(r"[/\\]", cells[column])[-1])


def template_problem(name: str, template: str, columns: list[str] | None = None) -> str | None:
    """What is wrong with a template. `columns`: those of the sheet, in small letters."""
    used = columns_of(template)
    if name not in IDS:
        return f"only an ID can be made: {', '.join(IDS)}"
    if not used:
        return f"{template!r:.80} names no column; a template is such as '{{patient_id}}_gDNA'"
    if columns is not None and (unknown := [one for one in used if one not in columns]):
        return f"the sheet has no column {unknown[0]!r:.80}; it has {', '.join(columns)}"
    return None


def make_ids(table: Rows, options: Options) -> Rows:
    """The table with the IDs that are to be made. An ID that it has stays, unless the template makes it of itself. In
    the templates, columns have their names in ct, as `--map` gives them."""
    for name, template in options.make.items():
        if name not in table.made:
            table = _with(table, name, template, [_our_name(written, options) for written in table.header])
    return table


def _with(table: Rows, name: str, template: str, names: list[str]) -> Rows:
    if said := template_problem(name, template, [one for one in names if one]):
        return replace(table, problems=[*table.problems, f"row 1: --make {name}: {said}"])
    at = names.index(name) if name in names else len(names)
    keeps = name not in columns_of(template)

    def made(cells: list[str]) -> list[str]:
        if len(cells) != len(names) or (keeps and at < len(cells) and cells[at]):
            return cells
        return [*cells[:at], filled(template, dict(zip(names, cells, strict=True))), *cells[at + 1 :]]

    rows = [(line, made(cells)) for line, cells in table.rows]
    return replace(table, header=[*table.header[:at], name, *table.header[at + 1 :]], rows=rows)


def _our_name(written: str, options: Options) -> str:
    name = (options.name_of(written) or "").lower()
    return ALIASES.get(name, name)
