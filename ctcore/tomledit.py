"""② ct.toml changed in place: some values of one table, or a new table. All else stays as it is, to the byte.

What is written is read again: where it does not say exactly what was meant, nothing is written.
"""

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ctcore.errors import ProjectError
from ctcore.settings import FILE_NAME

_HEADER = re.compile(r"[ \t]*\[(?!\[)[ \t]*(?P<names>[^\[\]#\r\n]+?)[ \t]*\][ \t]*(#.*)?$")
_ANY_HEADER = re.compile(r"[ \t]*\[")
_TEXT = r'(?:"(?:[^"\\]|\\.)*"|' + r"'[^']*')"
_LINES = re.compile(r"[^\n]*\n|[^\n]+")  # no other sign ends a line in TOML
_BARE = re.compile(r"[A-Za-z0-9_-]+")

Values = Mapping[str, str]


def changed(text: str, table: tuple[str, str], values: Values) -> str:
    """The text with other values of a table that is there. ProjectError where its form does not allow that."""
    wanted = _document(text)
    wanted[table[0]][table[1]] |= values
    lines = _LINES.findall(text)
    for at in _headers(lines, table):
        edited = _set(lines, at, values)
        if edited is not None and _says(edited, wanted):
            return edited
    raise _by_hand(table, values, "is written in a form that is not edited")


def added(text: str, table: tuple[str, str], values: Values) -> str:
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


def write_whole(path: Path, text: str, encoding: str = "utf-8") -> None:
    """The file is the old one or the new one, whatever happens; a link stays a link."""
    place = path.resolve()
    part = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        with part.open("w", encoding=encoding, newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        part.chmod(place.stat().st_mode & 0o7777)
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)


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


def _headers(lines: list[str], table: tuple[str, str]) -> Iterator[int]:
    """Lines that look like the table's header; within a text of several lines, one may only look so."""
    for at, line in enumerate(lines):
        found = _HEADER.match(line.rstrip("\r\n"))
        if found and _names(found["names"]) == list(table):
            yield at


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


def _set(lines: list[str], header: int, values: Values) -> str | None:
    """The table's lines with these values; None where a value has no line of its own."""
    end = next((at for at in range(header + 1, len(lines)) if _ANY_HEADER.match(lines[at])), len(lines))
    edited = list(lines)
    for key, value in values.items():
        form = re.compile(rf"([ \t]*[\"']?{re.escape(key)}[\"']?[ \t]*=[ \t]*){_TEXT}([ \t]*(?:#.*)?[\r\n]*)$")
        places = [at for at in range(header + 1, end) if form.match(edited[at])]
        if len(places) != 1:
            return None
        found = form.match(edited[places[0]])
        assert found is not None
        edited[places[0]] = f"{found[1]}{_quoted(value)}{found[2]}"
    return "".join(edited)


def _behind(lines: list[str], kind: str) -> int:
    """Where the last table of this kind ends: before the blank lines and comments that belong to what follows."""
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
    return key if _BARE.fullmatch(key) else _quoted(key)


def _quoted(value: str) -> str:
    """A TOML text: JSON's escapes are TOML's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def _by_hand(table: tuple[str, str], values: Values, what: str) -> ProjectError:
    said = ", ".join(f"{key} = {_quoted(value)}" for key, value in values.items())
    name = ".".join(map(_name, table))
    return ProjectError(f"{FILE_NAME}: [{name}] {what}; write {said} there by hand, then run `ct reference list`")
