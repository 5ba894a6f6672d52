"""Tags of a materialization for Dagster's own staleness: data version, code version and input versions.

Dagster compares along its partition mappings, which know no cohorts. Across levels it would mark every specimen as
stale when one assay changes, and after changes of the registry that a step does not read. For these edges the tags
claim that all input events were seen, and ct decides. Between steps of one level both agree, and Dagster
compares by itself.
"""

from collections.abc import Iterable, Mapping

import dagster as dg

from ct_assets.asset_keys import key_of
from ctcore.project import Project
from ctcore.step import Step

DATA_VERSION = "dagster/data_version"
_CODE_VERSION = "dagster/code_version"
_INPUT_VERSION = "dagster/input_data_version"
_INPUT_SEEN = "dagster/input_event_pointer"
# Higher than any event's number, so that Dagster finds no newer upstream event.
_EVERYTHING = 2**62


def last_event(instance: dg.DagsterInstance) -> int:
    """Number of the newest event; later ones are unseen."""
    return instance.event_log_storage.get_maximum_record_id() or 0


def step_tags(project: Project, step: Step, dependencies: Iterable[dg.AssetKey], seen: int) -> dict[str, str]:
    """The tags that all materializations of a step in one run share; `seen`: the last event before the run."""
    same = {key_of(project, up) for up in step.inputs.values() if project.steps[up].level == step.level}
    return _tags(
        project.recipes[step.name].code[:16], {key: seen if key in same else _EVERYTHING for key in dependencies}
    )


def registry_tags(parent: dg.AssetKey | None) -> dict[str, str]:
    """Tags of a registry node: its state is the catalog's, so its parent's events do not matter."""
    return _tags("registry", {parent: _EVERYTHING} if parent else {})


def _tags(code: str, seen: Mapping[dg.AssetKey, int]) -> dict[str, str]:
    tags = {_CODE_VERSION: code}
    for key, event in seen.items():
        name = key.to_user_string()
        # Dagster fills it for one upstream version; a node of a cohort has thousands, and only the ledger has them all.
        tags[f"{_INPUT_VERSION}/{name}"] = "see the ledger"
        tags[f"{_INPUT_SEEN}/{name}"] = str(event)
    return tags
