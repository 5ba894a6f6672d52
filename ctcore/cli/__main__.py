"""`python -m ctcore.cli`."""

from ctcore.cli import main

main()
