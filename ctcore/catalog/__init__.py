"""② The catalog: who is in the cohort, what was made from what, and every change of truth."""
