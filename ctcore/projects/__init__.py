"""A project as a whole: its state, its processes, its rights, its Dagster home."""
