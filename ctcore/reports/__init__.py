"""The cohort on a page and in pictures."""
