"""How the shell reaches Dagster: a process of its own, with DAGSTER_HOME of the project."""

import os
import subprocess
import sys

from ctcore.project import Project


def environment(project: Project) -> dict[str, str]:
    """The environment of every process that belongs to this project."""
    home = project.root / "dagster_home"
    home.mkdir(exist_ok=True)
    return {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "CT_PROJECT": str(project.root),
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }


def launch(project: Project, *arguments: str) -> int:
    """Run `ct_assets.launch` of the project and wait for it. Returns its exit code."""
    command = [sys.executable, "-m", "ct_assets.launch", *arguments]
    return subprocess.run(command, cwd=project.root, env=environment(project), check=False).returncode
