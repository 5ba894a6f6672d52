"""Change ct.toml in place: some values of one table, or a new table. Every other byte stays.

The result is parsed before it is written: if it differs from the intended content, nothing is written.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from ctcore.config.settings import FILE_NAME
from ctcore.errors import ProjectError

_HEADER = re.compile(r"[ \t]*\[(?!\[)[ \t]*(?P<names>[^\[\]#\r\n]+?)[ \t]*\][ \t]*(#.*)?$")
_ANY_HEADER = re.compile(r"[ \t]*\[")
_LINES = re.compile(r"[^\n]*\n|[^\n]+")  # no other sign ends a line in TOML

Values = Mapping[str, str | bool]


def change_table(text: str, table: tuple[str, str], values: Values) -> str:
    """The text with other values of a table that is there. ProjectError where its form does not allow that."""
    wanted = _document(text)
    wanted[table[0]][table[1]] |= values
    try:
        document: Any = tomlkit.parse(text)
        for key, value in values.items():
            document[table[0]][table[1]][key] = value
        edited = tomlkit.dumps(document)
    except TOMLKitError:
        edited = ""
    if _says(edited, wanted):
        return edited
    raise _by_hand(table, values, "is written in a form that is not edited")


def add_table(text: str, table: tuple[str, str], values: Values) -> str:
    """The text with a new table: behind the last one of its kind, or at the end."""
    wanted = _document(text)
    some = wanted.setdefault(table[0], {})
    if not isinstance(some, dict) or table[1] in some:
        raise _by_hand(table, values, "is there already")
    some[table[1]] = dict(values)
    lines: list[str] = _LINES.findall(text)
    ending = "\r\n" if text.count("\r\n") > text.count("\n") / 2 else "\n"
    new = [f"[{table[0]}.{_name(table[1])}]", *(f"{key} = {_quoted(value)}" for key, value in values.items())]
    for at in (_behind(lines, table[0]), len(lines)):
        before, after = "".join(lines[:at]), "".join(lines[at:])
        if before and not before.endswith("\n"):
            before += ending
        edited = before + ending.join(["", *new, ""]) + after
        if _says(edited, wanted):
            return edited
    raise _by_hand(table, values, f"cannot be added: {table[0]} is written in a form that is not edited")


def read_whole(path: Path) -> tuple[str, str]:
    """The text with its own line endings, and its encoding."""
    raw = path.read_bytes()
    encoding = "utf-8-sig" if raw.startswith(b"\xef\xbb\xbf") else "utf-8"
    return raw.decode(encoding), encoding


def _document(text: str) -> dict[str, Any]:
    return tomllib.loads(text.replace("\r\n", "\n"))


def _says(text: str, wanted: Mapping[str, Any]) -> bool:
    try:
        return _document(text) == wanted
    except tomllib.TOMLDecodeError:
        return False


def _names(dotted: str) -> list[str]:
    """The parts of `references.genome`, `references . "hs.37"`."""
    try:
        found: Any = tomllib.loads(f"[{dotted}]")
    except tomllib.TOMLDecodeError:
        return []
    names: list[str] = []
    while found:
        name, found = next(iter(found.items()))
        names.append(name)
    return names


def _behind(lines: list[str], kind: str) -> int:
    """The line after the last table of this kind, before blank lines and comments that belong to the next table."""
    mine = [
        at
        for at, line in enumerate(lines)
        if (found := _HEADER.match(line.rstrip("\r\n"))) and (_names(found["names"])[:1] == [kind])
    ]
    if not mine:
        return len(lines)
    end = next((at for at in range(mine[-1] + 1, len(lines)) if _ANY_HEADER.match(lines[at])), len(lines))
    while end > mine[-1] + 1 and lines[end - 1].lstrip()[:1] in ("", "#"):
        end -= 1
    return end


def _name(key: str) -> str:
    return tomlkit.key(key).as_string()


def _quoted(value: str | bool) -> str:
    return tomlkit.item(value).as_string()


def _by_hand(table: tuple[str, str], values: Values, what: str) -> ProjectError:
    said = ", ".join(f"{key} = {_quoted(value)}" for key, value in values.items())
    name = ".".join(map(_name, table))
    return ProjectError(f"{FILE_NAME}: [{name}] {what}; write {said} there by hand, then run `ct reference list`")
