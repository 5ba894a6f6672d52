"""The Dagster side of ct, and the steps of the reference pipeline."""
