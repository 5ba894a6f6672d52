"""What several commands print of verdicts."""

from collections.abc import Mapping
from typing import Any

from ctcore.model.node import name_of
from ctcore.model.reasons import Verdict


def reasons_json(verdict: Verdict) -> list[dict[str, Any]]:
    """The reasons of a verdict that the mask has told."""
    return [
        {
            "kind": r.kind,
            "words": str(r.words),
            "node": r.node and name_of(r.node),
            "path": [name_of(step) for step in r.path],
            "input": r.input,
            "old": r.old,
            "new": r.new,
            "evidence": r.evidence,
        }
        for r in verdict.reasons
    ]


def in_words(states: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {state}" for state, n in states.items())
