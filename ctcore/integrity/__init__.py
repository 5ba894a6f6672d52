"""Checks of files, event records and catalog tables, and the recovery of the records."""
