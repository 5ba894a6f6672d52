"""The page of a report, drawn by the template beside this file. Each step that makes one says `code=PAGE`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = "_page.html"
Part = Mapping[str, Any]
"""What the template draws; it says which forms there are."""


def page(title: str, subtitle: str, parts: Sequence[Part], foot: str, style: str = "") -> str:
    """HTML that loads nothing. What data says stays text; `style` is CSS of the step."""
    from jinja2 import Environment, StrictUndefined

    text = Path(__file__).with_name(PAGE).read_text(encoding="utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(text)
    return template.render(title=title, subtitle=subtitle, parts=parts, foot=foot, style=style)


def section(title: str, lead: str, *parts: Part) -> Part:
    return {"section": title, "lead": lead, "parts": parts}
