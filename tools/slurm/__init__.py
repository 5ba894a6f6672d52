"""A real Slurm cluster on this machine, private to one folder: for tests, and to try profiles out.

It needs Debian's Slurm, munge and MariaDB, and nothing else but Python's standard library. See docs/slurm-sandbox.md.
"""
