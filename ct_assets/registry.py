"""③ The registry as assets: patients, specimens, assays and references, as the catalog has them."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ct_assets.checks import usable_result, usable_spec
from ct_assets.factory import BATCH
from ct_assets.keys import group_of, key_of
from ct_assets.partitions import definition
from ct_assets.runs import sign
from ct_assets.versions import DATA_VERSION, registry_tags
from ctcore import registry
from ctcore.files import check_references, look
from ctcore.project import Project
from resources import CtProject

_DESCRIPTIONS = {
    "patient": "The people of the cohort, as registered: one partition a patient.",
    "specimen": "What was taken from them: one partition a specimen.",
    "assay": "What was measured, with its raw files and their digests: one partition an assay.",
    "reference": "Outside files that steps use, with version and content digest: one partition a reference.",
}


def registry_assets(project: Project) -> list[dg.AssetsDefinition]:
    """The four registry assets. No step waits for their materializations; the catalog is what steps read."""
    return [
        _registry_asset(project, "patient", None),
        _registry_asset(project, "specimen", "patient"),
        _registry_asset(project, "assay", "specimen"),
        _registry_asset(project, "reference", None),
    ]


def _registry_asset(project: Project, level: str, parent: str | None) -> dg.AssetsDefinition:
    mapping = dg.AllPartitionMapping()
    above = key_of(project, parent) if parent else None
    spec = dg.AssetSpec(
        key_of(project, level),
        description=_DESCRIPTIONS[level],
        partitions_def=definition(project.id, level),
        deps=[dg.AssetDep(above, partition_mapping=mapping)] if above else [],
        group_name=group_of(project, "registry"),
        kinds={"table"},
        skippable=True,
    )

    @dg.multi_asset(
        name=level,
        specs=[spec],
        check_specs=[usable_spec(project, level)] if level != "reference" else [],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1000),
    )
    def body(context: dg.AssetExecutionContext, ct: CtProject) -> Iterator[Any]:
        sign(context, project.id)
        opened = ct.to_write() if context.selected_asset_keys else ct.open()
        if context.selected_asset_keys:
            yield from _events(context, opened, level, above)
        if context.selected_asset_check_keys:
            yield usable_result(opened, level)

    return body


def _events(context: dg.AssetExecutionContext, opened: Project, level: str, above: dg.AssetKey | None) -> Iterator[Any]:
    if level == "reference":
        check_references(opened)
        look(opened)
    found = registry.entries(opened, level, context.partition_keys)
    single = len(found) == 1 and len(context.partition_keys) == 1
    for at in range(0, len(found), BATCH):
        some = found[at : at + BATCH]
        for entry in some:
            yield _event(key_of(opened, level), entry, above, single=single)
        registry.mark_reported(opened, some)
    absent = set(context.partition_keys) - {entry.partition for entry in found}
    if absent:
        raise dg.Failure(f"not registered: {', '.join(sorted(absent)[:20])}", allow_retries=False)


def _event(key: dg.AssetKey, entry: registry.Entry, parent: dg.AssetKey | None, single: bool) -> Any:
    metadata = {
        "digest": entry.data_version,
        **({"excluded": entry.excluded} if entry.excluded else {}),
        "columns": ", ".join(sorted(entry.declared["attributes"])) or "none",  # their values are personal data
        "files": dg.MetadataValue.json(dict(entry.declared["files"])),
        **({"parent": entry.parent} if entry.parent and not entry.excluded else {}),
    }
    if single:
        version = dg.DataVersion(entry.data_version)
        return dg.MaterializeResult(metadata=metadata, data_version=version, tags=registry_tags(parent))
    return dg.AssetMaterialization(
        key,
        partition=entry.partition,
        metadata=metadata,
        tags={DATA_VERSION: entry.data_version, **registry_tags(parent)},
    )
