"""ct: what is complete, what is usable and what is still true in a cohort. Imports no Dagster."""
