"""③ The registry as assets: patients, specimens, assays and references, as the catalog has them."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ct_assets.checks import usable_result, usable_spec
from ct_assets.factory import BATCH
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

    @dg.asset(
        name=level,
        description=_DESCRIPTIONS[level],
        partitions_def=definition(project.id, level),
        deps=[dg.AssetDep(parent, partition_mapping=mapping)] if parent else [],
        group_name="registry",
        kinds={"table"},
        backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1000),
        output_required=False,
        check_specs=[usable_spec(level)] if level != "reference" else None,
    )
    def body(context: dg.AssetExecutionContext, ct: CtProject) -> Iterator[Any]:
        sign(context)
        opened = ct.open()
        if level == "reference":
            check_references(opened)
            look(opened)
        found = registry.entries(opened, level, context.partition_keys)
        for at in range(0, len(found), BATCH):
            some = found[at : at + BATCH]
            for entry in some:
                yield _event(entry, parent, single=len(found) == 1 and len(context.partition_keys) == 1)
            registry.mark_reported(opened, some)
        if level != "reference":
            yield usable_result(opened, level)
        absent = set(context.partition_keys) - {entry.partition for entry in found}
        if absent:
            raise dg.Failure(f"not registered: {', '.join(sorted(absent)[:20])}", allow_retries=False)

    return body


def _event(entry: registry.Entry, parent: str | None, single: bool) -> Any:
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
        dg.AssetKey(entry.asset),
        partition=entry.partition,
        metadata=metadata,
        tags={DATA_VERSION: entry.data_version, **registry_tags(parent)},
    )
