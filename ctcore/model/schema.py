"""The declaration of each level: its columns, their types, the pattern of its IDs, its raw files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

from ctcore.model.column import Column
from ctcore.model.levels import ENTITY_LEVELS, Level

CHECKSUMS = ("md5", "sha256", "blake3")
ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
COLUMN_NAME = r"[A-Za-z_][A-Za-z0-9_]*"


@dataclass(frozen=True)
class LevelSchema:
    """One level: its metadata columns, the pattern that its IDs match in full, and the roles of its raw files, of which
    some are folders."""

    level: Level
    columns: Mapping[str, Column] = field(default_factory=dict)
    id_pattern: str = ID_PATTERN
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    @property
    def roles(self) -> tuple[str, ...]:
        """Of its raw files, folders too."""
        return (*self.files, *self.folders)

    def id_is_valid(self, entity_id: str) -> bool:
        """A project's pattern can only narrow the IDs: it never allows characters that are unsafe in a path."""
        return all(pattern.fullmatch(entity_id) for pattern in self._patterns)

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        return [re.compile(pattern) for pattern in {ID_PATTERN, self.id_pattern}]


Levels = Mapping[Level, LevelSchema]


def folder_roles(levels: Levels) -> frozenset[str]:
    """All roles of raw files that are folders."""
    return frozenset(role for level in ENTITY_LEVELS for role in levels[level].folders)


def as_json(levels: Levels) -> dict[str, Any]:
    """The part of a declaration that decides which values are valid, in the form that the catalog keeps."""
    return {
        level: {
            "columns": {name: _column_as_json(one) for name, one in levels[level].columns.items()},
            "id_pattern": levels[level].id_pattern,
            "files": list(levels[level].files),
            # Only where there are some: a catalog of before has no such key.
            **({"folders": list(levels[level].folders)} if levels[level].folders else {}),
        }
        for level in ENTITY_LEVELS
    }


def _column_as_json(column: Column) -> dict[str, Any]:
    return {
        "type": column.type,
        "required": column.required,
        "unique": column.unique,
        "default": column.default,
        "enum": list(column.enum),
    }


def from_json(document: dict[str, Any]) -> Levels:
    """The declaration that `as_json` was given, without its descriptions."""
    return {level: _level_from_json(level, document[level]) for level in ENTITY_LEVELS}


def _level_from_json(level: Level, document: dict[str, Any]) -> LevelSchema:
    columns = {
        name: Column(name, **{**cast(dict[str, Any], one), "enum": tuple(one["enum"])})
        for name, one in document["columns"].items()
    }
    return LevelSchema(
        level, columns, document["id_pattern"], tuple(document["files"]), tuple(document.get("folders", ()))
    )
