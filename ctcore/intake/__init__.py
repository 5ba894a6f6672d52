"""Everything that people hand over: sheets, results, raw files, references."""
