"""A page of HTML, drawn by the template that the cohort report uses too: one file, which steps bring along."""

from collections.abc import Mapping, Sequence
from typing import Any

from ctcore.config.templates import project_data
from ctcore.reports.palette import LOOKS

TEMPLATE = "ct_assets/steps/_page.html"
STYLE = (
    "".join(f".{state}{{background:{colour}}}\n" for state, (colour, _, _) in LOOKS.items())
    + """\
.lost{color:#ffffff}
.fresh,.failed,.stale,.running{color:#14181f}
.missing,.excluded{color:#525a66}
@media screen and (prefers-color-scheme:dark){
.missing{background:#3a424f;color:#c5ccd6}.excluded{background:var(--paper);color:var(--soft)}
.lost{background:#fff;color:#000}}
"""
)
"""The colours of the states."""

Part = Mapping[str, Any]
"""What the template draws; it says which forms there are."""


def page(title: str, subtitle: str, parts: Sequence[Part], foot: str) -> str:
    """HTML that loads nothing. What data says stays text."""
    from jinja2 import Environment, StrictUndefined

    text = (project_data() / TEMPLATE).read_text(encoding="utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(text)
    drawn = template.render(title=title, subtitle=subtitle, parts=parts, foot=foot, style=STYLE)
    return drawn.replace("\0", "\ufffd")  # no page may have it


def section(title: str, lead: str, *parts: Part) -> Part:
    return {"section": title, "lead": lead, "parts": parts}


def table(heads: Sequence[Any], rows: Sequence[Sequence[Any]], class_: str = "full", row_heads: int = 1) -> Part:
    """The first `row_heads` cells of a row are its heads."""
    return {"table": {"heads": heads, "rows": rows, "class": class_, "row_heads": row_heads}}


def head(text: str, class_: str = "n") -> Mapping[str, str]:
    """The head of a column whose cells have a class; "n": numbers."""
    return {"text": text, "class": class_}


def bar(counts: Sequence[tuple[str, int]]) -> Mapping[str, Any]:
    """A cell with one line that is cut into the shares of the states."""
    total = sum(n for _, n in counts) or 1
    shares = [{"class": state, "width": f"{100 * n / total:.3f}", "title": f"{n} {state}"} for state, n in counts]
    return {"bar": {"shares": shares, "title": ", ".join(f"{n} {state}" for state, n in counts)}}
