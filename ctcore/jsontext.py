"""JSON that somebody else may have written. Needs the standard library only."""

import json
from typing import Any


def loads(text: str | bytes, **options: Any) -> Any:
    """What `json.loads` gives. ValueError also where it is nested too deeply to be read."""
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply to be read") from None
