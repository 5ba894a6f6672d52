"""The Git commit of a step's file. It is recorded beside the result and is no part of its identity."""

import os
import subprocess
from pathlib import Path

PATIENCE_S = 10.0


def commit_of(source: Path) -> str | None:
    """The commit of the file's repository, with `+` where its folder has changes that are in none.

    None where there is no git, no repository, no commit yet, or where git does not know the file; never an error.
    """
    said = _git(source.parent, "status", "--porcelain=v2", "--branch", "--untracked-files=all", "--", ".")
    if said is None:
        return None
    lines = said.splitlines()
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), "(initial)")
    if commit == "(initial)":
        return None
    changed = [line for line in lines if not line.startswith("# ") and "__pycache__" not in line]
    if not changed and not _git(source.parent, "ls-files", "--", source.name):
        return None  # ignored by git: no commit has it
    return commit + ("+" if changed else "")


def _git(folder: Path, *words: str) -> str | None:
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *words]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_S,
            check=False,
            env=outside | {"GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
