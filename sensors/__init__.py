"""Thin sensors: they ask ctcore what is true, and ask Dagster for runs."""
