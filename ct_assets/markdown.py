"""Tables in Markdown, for the metadata that Dagster's UI shows."""

from collections.abc import Sequence


def table(title: str, columns: Sequence[str], listed: Sequence[Sequence[str]]) -> str:
    """A Markdown table under its title; the empty string where it has no rows."""
    if not listed:
        return ""
    lines = [columns, ("---",) * len(columns), *listed]
    drawn = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"### {title}\n{drawn}"
