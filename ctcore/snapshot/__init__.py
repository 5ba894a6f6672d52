"""The catalog in columns. Verdicts are computed from it; it follows the events."""
