"""Helpers for every package: time, progress, atomic files, JSON from strangers."""
