"""What would run, in which order, why, and at what cost."""
