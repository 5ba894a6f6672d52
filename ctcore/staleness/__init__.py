"""Verdicts on every node: is it still true, and if not, why."""
