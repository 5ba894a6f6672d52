"""⑦ The catalog in columns: what verdicts are computed from; it follows the events."""
