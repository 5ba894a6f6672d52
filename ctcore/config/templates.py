"""The files that `ct init` writes, and their source."""

import re
import shutil
from pathlib import Path

from ctcore.errors import Usage

GITIGNORE = """\
catalog.db*
store/
work/
dagster_home/*
!dagster_home/dagster.yaml
__pycache__/
"""


def project_data() -> Path:
    """Where definitions.py, ct_assets and their siblings are: in the wheel, or the checkout."""
    packaged = Path(__file__).parent.parent / "_project"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent.parent


def example_folder(name: str) -> Path:
    """Where an example's data are."""
    folder = project_data() / "examples" / name
    if not re.fullmatch(r"[a-z0-9_]+", name) or not (folder / "ct.toml").is_file():
        known = sorted(path.parent.name for path in (project_data() / "examples").glob("*/ct.toml"))
        raise Usage(f"no example {name!r}; there is: {', '.join(known)}")
    return folder


def copy_example(name: str, directory: Path) -> str:
    """Copy an example's data into a new project. Returns its ct.toml."""
    folder = example_folder(name)
    for path in folder.iterdir():
        if path.name == "ct.toml" or path.name.startswith("__"):
            continue
        if path.is_dir():
            shutil.copytree(path, directory / path.name, dirs_exist_ok=True)
        else:
            shutil.copy(path, directory / path.name)
    return (folder / "ct.toml").read_text(encoding="utf-8")
