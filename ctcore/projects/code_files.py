"""The files of a project that Dagster loads: what `ct init` writes and replaces, and what is a group's own."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ctcore.config import editor_schema
from ctcore.config.templates import project_data
from ctcore.errors import ProjectError
from ctcore.store.digest import tagged_digest
from ctcore.util.atomic_file import write_whole

WORKSPACE = "workspace.yaml"
SETTINGS = "dagster_home/dagster.yaml"
PARTS = ("definitions.py", WORKSPACE, "ct_assets", "resources", "sensors", SETTINGS)
"""What Dagster reads of ct; each is replaced by the next ct."""
OWN_DEFINITIONS = "own_definitions.py"
OWN_WORKSPACE = "own_workspace.yaml"
OWN_SETTINGS = "own_dagster.yaml"
OWN = {"definitions.py": OWN_DEFINITIONS, WORKSPACE: OWN_WORKSPACE, SETTINGS: OWN_SETTINGS}
"""Where a group's own belongs, which ct reads and never writes, by the file that it would else be added to."""
_WRITTEN = "ct_assets/.written.json"
_BEFORE = ".before"


def bring_up_to_date(root: Path, project_id: str) -> list[str]:
    """Write the installed ct's files into a project. Returns those that somebody had changed by hand: what stood there
    is kept beside, as `NAME.before`.

    ProjectError, and nothing is written, where the group's own settings of Dagster cannot be read.
    """
    source = project_data()
    if source.resolve() == root.resolve():
        return []
    files = {name: path.read_bytes() for name, path in _shipped(source)}
    # An instance knows sensors by location and name.
    files[WORKSPACE] = files[WORKSPACE].rstrip() + f"\n      location_name: {project_id}\n".encode()
    files[SETTINGS] = settings_with_own(root, files[SETTINGS])
    files[editor_schema.SCHEMA_FILE] = editor_schema.text().encode()
    before, kept = _written(root), []
    for name, content in files.items():
        if _is_changed_by_hand(root / name, content, before, name):
            shutil.copy2(root / name, root / f"{name}{_BEFORE}")
            kept.append(name)
        write_whole(root / name, content)
    write_whole(root / _WRITTEN, json.dumps({name: _digest(content) for name, content in files.items()}).encode())
    return kept


def settings_with_own(root: Path, settings: bytes) -> bytes:
    """Dagster's settings of ct with the group's own: theirs win, key by key. ProjectError where they cannot be."""
    place = root / OWN_SETTINGS
    if not place.is_file():
        return settings
    import yaml  # 15 ms, for few projects

    try:
        own = yaml.safe_load(place.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProjectError(f"{place}: {' '.join(str(error).split())}") from error
    if own is None:
        return settings
    if not isinstance(own, dict):
        raise ProjectError(f"{place}: this is no mapping; settings of Dagster are, such as `run_retries:`")
    if "storage" in own:
        raise ProjectError(f"{place}: storage is ct's own; CT_POSTGRES_URL puts it on PostgreSQL. Take that key out")
    said = f"# ct's settings and those of {OWN_SETTINGS}, joined by `ct init`, `ct dev` and `ct run`: change those.\n"
    joined = _joined(yaml.safe_load(settings), own)
    return said.encode() + yaml.safe_dump(joined, sort_keys=False, allow_unicode=True).encode()


def refresh_settings(root: Path) -> None:
    """Bring Dagster's settings up to what the group's own say now. Nothing is written where nothing changed."""
    if not (root / OWN_SETTINGS).is_file() or project_data().resolve() == root.resolve():
        return
    wanted = settings_with_own(root, (project_data() / SETTINGS).read_bytes())
    place = root / SETTINGS
    if not place.is_file() or place.read_bytes() != wanted:
        write_whole(place, wanted)
        write_whole(root / _WRITTEN, json.dumps({**_written(root), SETTINGS: _digest(wanted)}).encode())


def _shipped(source: Path) -> Iterator[tuple[str, Path]]:
    """Name and place of every file of the parts."""
    for part in PARTS:
        found = sorted((source / part).rglob("*")) if (source / part).is_dir() else [source / part]
        for path in found:
            if path.is_file() and path.suffix != ".pyc":
                yield path.relative_to(source).as_posix(), path


def _is_changed_by_hand(path: Path, new: bytes, before: Mapping[str, str], name: str) -> bool:
    if not path.is_file() or (stood := path.read_bytes()) == new:
        return False
    # A project of an older ct knows of no digests: then only what people do change is kept.
    return before[name] != _digest(stood) if name in before else name in OWN


def _written(root: Path) -> dict[str, str]:
    """The digest of each file as ct wrote it last; empty where nothing is known of that."""
    try:
        found = json.loads((root / _WRITTEN).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _joined(ours: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Two mappings as one, deeply; `own` wins."""
    both = [key for key in own if isinstance(ours.get(key), dict) and isinstance(own[key], dict)]
    return {**ours, **own, **{key: _joined(ours[key], own[key]) for key in both}}


def _digest(content: bytes) -> str:
    return tagged_digest("ct.code_file.v1", content)
