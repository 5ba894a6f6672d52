"""Calls on a Slurm cluster: one array a batch of calls, watched by listing results, never submitted twice."""
