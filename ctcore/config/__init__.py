"""ct.toml: reading, checking and changing it, and the contents of a new project."""
