"""What ct.toml declares of each level: its columns, their types, the pattern of its IDs, its raw files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

from ctcore.step import Level

ColumnType = Literal["text", "integer", "real", "boolean", "date"]
COLUMN_TYPES: tuple[ColumnType, ...] = get_args(ColumnType)
CHECKSUMS = ("md5", "sha256", "blake3")
ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
COLUMN_NAME = r"[A-Za-z_][A-Za-z0-9_]*"

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Column:
    """A metadata column. Text stays text; a date is ISO 8601 text; `enum` lists the only values allowed."""

    name: str
    type: ColumnType = "text"
    required: bool = False
    enum: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True)
class LevelSchema:
    """One level: its metadata columns, the pattern that its IDs match in full, and the roles of its raw files."""

    level: Level
    columns: Mapping[str, Column] = field(default_factory=dict)
    id_pattern: str = ID_PATTERN
    files: tuple[str, ...] = ()

    def id_is_valid(self, entity_id: str) -> bool:
        """A pattern of the project narrows what an ID is; it never lets in what is unsafe in a path."""
        return all(pattern.fullmatch(entity_id) for pattern in self._patterns)

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        return [re.compile(pattern) for pattern in {ID_PATTERN, self.id_pattern}]


Levels = Mapping[Level, LevelSchema]
