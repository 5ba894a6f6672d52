"""③ What a materialization tells Dagster's own view of what is in step: data version, code version, inputs seen.

Dagster compares by its partition mappings, which know no cohort: of an edge between levels it would call every
specimen out of step when one assay changes, and of the registry what a step does not read. There ct judges, and the
tags say that all was seen. Between steps of one level both see the same, and Dagster compares by itself.
"""

from collections.abc import Iterable, Mapping

import dagster as dg

from ct_assets.keys import key_of
from ctcore.project import Project
from ctcore.step import Step

DATA_VERSION = "dagster/data_version"
_CODE_VERSION = "dagster/code_version"
_INPUT_VERSION = "dagster/input_data_version"
_INPUT_SEEN = "dagster/input_event_pointer"
_EVERYTHING = 2**62


def last_event(instance: dg.DagsterInstance) -> int:
    """Up to here everything has been seen."""
    return instance.event_log_storage.get_maximum_record_id() or 0


def step_tags(project: Project, step: Step, dependencies: Iterable[dg.AssetKey], seen: int) -> dict[str, str]:
    """The tags that all materializations of a step in one run have in common; `seen` is the last event before it."""
    same = {key_of(project, up) for up in step.inputs.values() if project.steps[up].level == step.level}
    return _tags(
        project.recipes[step.name].code[:16], {key: seen if key in same else _EVERYTHING for key in dependencies}
    )


def registry_tags(parent: dg.AssetKey | None) -> dict[str, str]:
    """A registry node is what the catalog says, whenever its parent was told of."""
    return _tags("registry", {parent: _EVERYTHING} if parent else {})


def _tags(code: str, seen: Mapping[dg.AssetKey, int]) -> dict[str, str]:
    tags = {_CODE_VERSION: code}
    for key, event in seen.items():
        name = key.to_user_string()
        tags[f"{_INPUT_VERSION}/{name}"] = "see the ledger"
        tags[f"{_INPUT_SEEN}/{name}"] = str(event)
    return tags
