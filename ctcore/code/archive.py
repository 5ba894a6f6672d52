"""The code of every recipe that ever ran, by its digest, and the lines that differ between two.

`store/.code/<digest>.json` is written before the first call; its digest proves it.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ctcore.code import TAG, Code
from ctcore.store.digest import canonical_json, digest_value
from ctcore.util import json_text
from ctcore.util.atomic_file import write_whole

FOLDER = ".code"


def keep_code(store: Path, code: Code) -> None:
    """Keep it, where it is not kept yet."""
    place = _place(store, code.digest)
    if place.exists():
        return
    # Two that come here at once write the same bytes: the name is their digest.
    write_whole(place, canonical_json(code.content), mode=0o444)


def read_code(store: Path, digest: str) -> Mapping[str, Any] | None:
    """The code of a digest; None if it was not kept or does not match its digest."""
    try:
        content = json_text.loads(_place(store, digest).read_bytes())
    except (OSError, ValueError):
        return None
    return content if digest_value(TAG, content) == digest else None


def _place(store: Path, digest: str) -> Path:
    return store / FOLDER / f"{digest}.json"


def differing_names(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The differences by name: a function, a file, the declaration."""
    a, b = _parts(old), _parts(new)
    names = [key for key in {**a, **b} if a.get(key) != b.get(key)]
    found = [name or file for file, name in names if not name.startswith("import ")]
    found += [name for file, name in names if name.startswith("import ")] if not found else []
    before, after = (one.get("files", {}) for one in (old, new))
    found += [name for name in {**before, **after} if before.get(name) != after.get(name)]
    for what in ("declaration", "values"):
        if old.get(what) != new.get(what):
            found.append(f"its {what}")
    return list(dict.fromkeys(found))


def names_between(store: Path, old: str, new: str) -> list[str]:
    """The differences between the code of two digests; empty if one was not kept."""
    before, after = read_code(store, old), read_code(store, new)
    return differing_names(before, after) if before and after else []


def lines_between(store: Path, old: str, new: str) -> list[str]:
    """The different lines between the code of two digests; empty if one was not kept."""
    before, after = read_code(store, old), read_code(store, new)
    return list(diff_lines(before, after)) if before and after else []


def _parts(content: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    return {(file, name): text for file, name, text in content["source"]}


def code_lines(content: Mapping[str, Any]) -> list[str]:
    """The code for people: each file with its definitions, as it counts; then the declaration and the other files."""
    found: list[str] = []
    last = None
    for file, _, text in content["source"]:
        if file != last:
            found += [*([""] if found else []), f"# {file}"]
            last = file
        found += text.splitlines()
    found += ["", "# declaration", *(f"{name}: {json.dumps(said)}" for name, said in content["declaration"].items())]
    for what in ("values", "files"):
        if what in content:
            listed = content[what].items() if what == "files" else [("values", content[what])]
            found += ["", f"# {what}", *(f"{name}: {json.dumps(said)}" for name, said in listed)]
    return found


def diff_lines(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """The different lines as `diff -u` writes them, without context."""
    yield from (
        line
        for line in difflib.unified_diff(code_lines(old), code_lines(new), n=1, lineterm="")
        if line[:3] not in ("---", "+++")
    )
