"""The user's list of projects: a small file of IDs and folders, by which `--project ID` finds one.

It is an address book, not a record: a project's ct.toml and catalog hold its facts and its state.
"""

import difflib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctcore.config.settings import FILE_NAME, PROJECT_ID, read_settings
from ctcore.errors import ProjectError, Usage
from ctcore.util import json_text
from ctcore.util.atomic_file import write_whole

VARIABLE = "CT_PROJECTS"


def address_book_file() -> Path:
    """Where the list is: CT_PROJECTS, or in the user's folder of settings."""
    if given := os.environ.get(VARIABLE):
        return Path(given).expanduser()
    settings = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(settings).expanduser() / "ct" / "projects.json"


def known_projects() -> dict[str, Path]:
    """ID → folder, sorted."""
    place = address_book_file()
    try:
        found = json_text.loads(place.read_text(encoding="utf-8"))
        return {name: Path(folder) for name, folder in sorted(found["projects"].items())}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ProjectError(f"{place} cannot be read: {error.strerror}; {VARIABLE} names another place") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ProjectError(
            f"{place} is no list of projects; move it away, and name each again: `ct projects add DIR`"
        ) from error


def folder_of(project_id: str) -> Path:
    """The current folder of this project. Usage error with a suggestion if it is unknown."""
    if not re.fullmatch(PROJECT_ID, project_id):
        raise Usage(f"{project_id!r} is no ID of a project (a-z, 0-9 and -); a directory is named with -C DIR")
    listed = known_projects()
    if project_id not in listed:
        near = difflib.get_close_matches(project_id, listed, 3) or list(listed)[:10]
        hint = f"known: {', '.join(near)}" if near else "none is known yet"
        raise Usage(f"no project {project_id!r}; {hint} (`ct projects`; `ct projects add DIR` makes one known)")
    if problem := problem_of(project_id, listed[project_id]):
        raise ProjectError(f"{project_id}: {problem}")
    return listed[project_id]


def problem_of(project_id: str, folder: Path) -> str | None:
    """Why a folder is not the project that it was; None where it is."""
    forget = f"`ct projects remove {project_id}`"
    if not (folder / FILE_NAME).is_file():
        return f"{folder} was moved or deleted: `ct projects add DIR` where it is now, or {forget}"
    found = read_settings(folder / FILE_NAME).project_id
    if found != project_id:
        return f"{folder} is the project {found} now: {forget}, then `ct projects add {folder}`"
    return None


@contextmanager
def changing_projects() -> Iterator[dict[str, Path]]:
    """The list, for changes inside the block: one process at a time, written whole at its end."""
    place = address_book_file()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.with_name(f".{place.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            listed = known_projects()
            yield listed
            text = {"format": 1, "projects": {name: str(folder) for name, folder in sorted(listed.items())}}
            write_whole(place, (json.dumps(text, indent=1) + "\n").encode())
    except OSError as error:
        raise ProjectError(f"{place} cannot be written: {error.strerror}; {VARIABLE} names another place") from error
