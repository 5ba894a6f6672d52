"""Materializing a project's assets in a process: what tests of Dagster begin with."""

from ct_assets.testing import RANGE
from ct_assets.testing import run_assets as run

__all__ = ["RANGE", "run", "span"]


def span(first: str, last: str) -> dict[str, str]:
    """The tags of a run over a range of partitions."""
    return dict(zip(RANGE, (first, last), strict=True))
