"""⑧ Tables in Markdown, for the metadata that Dagster's UI shows."""

from collections.abc import Sequence


def table(title: str, columns: Sequence[str], listed: Sequence[Sequence[str]]) -> str:
    """A table under its title; nothing where it is empty."""
    if not listed:
        return ""
    lines = [columns, ("---",) * len(columns), *listed]
    drawn = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"### {title}\n{drawn}"
