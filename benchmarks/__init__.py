"""What the work costs, each time beside a baseline measured in the same run: `python -m benchmarks`."""
