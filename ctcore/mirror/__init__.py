"""⑦ The catalog in columns: what verdicts are computed from, kept in memory and beside the project, following events."""
