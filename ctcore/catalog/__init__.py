"""The catalog: the cohort, the ledger of makings, and every change of truth."""
