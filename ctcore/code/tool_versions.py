"""The versions of a step's programs, as their version commands print them. They are queried once per run, not once
per call."""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ctcore.util import json_text
from ctcore.util.atomic_file import write_json

PATIENCE_S = 60
MOST = 2000
PREFIX = "tool "


def tool_versions(tools: Mapping[str, str]) -> dict[str, str]:
    """The output of the version commands here and now, by tool. Each command runs once per process."""
    with ThreadPoolExecutor(8) as pool:
        return dict(zip((PREFIX + name for name in tools), pool.map(_said, tools.values()), strict=True))


@cache
def _said(command: str) -> str:
    words = shlex.split(command)
    if not words or shutil.which(words[0]) is None:
        return "not found"
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=tempfile.gettempdir(),
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PATIENCE_S} s"
    except OSError as error:
        return f"cannot be run: {error.strerror}"
    text = (done.stdout.strip() or done.stderr.strip()).decode(errors="replace")
    return text[:MOST] or f"exit code {done.returncode}"


@dataclass
class Tools:
    """Tool versions remembered in a file while the program's file is unchanged; for commands that only ask.

    A run queries anew, because a program may be a small script that starts another one.
    """

    place: Path
    _known: dict[str, Any] | None = field(default=None)

    def versions(self, tools: Mapping[str, str]) -> dict[str, str]:
        if not tools:
            return {}
        known = self._read()
        new = {name: command for name, command in tools.items() if known.get(command, {}).get("file") != _file(command)}
        if new:
            self._keep(new)
        return {PREFIX + name: self._read()[command]["said"] for name, command in tools.items()}

    def look(self, tools: Iterable[Mapping[str, str]]) -> bool:
        """Query all tools again. Returns whether an answer differs from the remembered one."""
        listed = {command: command for some in tools for command in some.values()}
        before = {command: self._read().get(command) for command in listed}
        if listed:
            self._keep(listed)
        return any(self._read()[command] != said for command, said in before.items())

    def _keep(self, tools: Mapping[str, str]) -> None:
        said = tool_versions(tools)
        now = {command: {"file": _file(command), "said": said[PREFIX + name]} for name, command in tools.items()}
        if any(self._read().get(command) != one for command, one in now.items()):
            self._known = {**self._read(), **now}
            with suppress(OSError):  # a place that one may only read: it is asked again next time
                write_json(self.place, self._known)

    def _read(self) -> dict[str, Any]:
        if self._known is None:
            try:
                said = json_text.loads(self.place.read_bytes())
            except (OSError, ValueError):
                said = {}
            self._known = said if isinstance(said, dict) else {}
        return self._known


def _file(command: str) -> list[Any] | None:
    """The identity of the program's file now."""
    words = shlex.split(command)
    found = shutil.which(words[0]) if words else None
    if found is None:
        return None
    seen = os.stat(found)
    return [os.path.realpath(found), seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino]


def tool_problems(tools: Mapping[str, str]) -> Iterable[str]:
    """The problems of a declaration."""
    for name, command in tools.items():
        try:
            words = shlex.split(command)
        except ValueError as error:
            yield f"tools {name!r}: {command!r}: {error}"
            continue
        if not words:
            yield f'tools {name!r}: say which command prints its version, as in {{"{name}": "{name} --version"}}'
