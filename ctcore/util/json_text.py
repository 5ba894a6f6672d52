"""JSON that somebody else may have written. Needs only the standard library."""

import json
from typing import Any


def loads(text: str | bytes, **options: Any) -> Any:
    """Like `json.loads`, with ValueError for nesting that is too deep to read."""
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply to be read") from None
