"""Analyses of ct.toml, which are made elsewhere: their level and their typed columns."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ctcore.model.column import Column
from ctcore.model.levels import Level

QC_NAMES = ("qc", "qc_reason")
"""What a result may say of the quality of its entity, as a step may."""
KEPT_NAMES = ("id", "entity", "run", "version", "reason", *QC_NAMES)


@dataclass(frozen=True)
class Analysis:
    """Its results are recorded by people, for an entity and a run at a time."""

    name: str
    level: Level
    columns: Mapping[str, Column]
    description: str = ""


Analyses = Mapping[str, Analysis]
_KEPT = ("type", "required", "enum", "range")


def as_json(analyses: Analyses) -> dict[str, Any]:
    """The part of the declarations that decides which values are valid, in the form that the catalog keeps."""
    return {
        name: {
            "level": one.level,
            "columns": {column: _kept(declared) for column, declared in one.columns.items()},
        }
        for name, one in analyses.items()
    }


def _kept(column: Column) -> dict[str, Any]:
    found = {key: value for key, value in asdict(column).items() if key in _KEPT}
    ends = column.range and [end if math.isfinite(end) else None for end in column.range]
    return {**found, "enum": list(column.enum), "range": ends}


def from_json(document: Mapping[str, Any]) -> Analyses:
    """The declarations that `as_json` was given, without units and descriptions."""
    return {
        name: Analysis(name, one["level"], {column: _column(column, said) for column, said in one["columns"].items()})
        for name, one in document.items()
    }


def _column(name: str, said: Mapping[str, Any]) -> Column:
    low, high = said["range"] or (None, None)
    ends = (-math.inf if low is None else low, math.inf if high is None else high) if said["range"] else None
    return Column(name, said["type"], said["required"], tuple(said["enum"]), range=ends)
