"""The registry as assets: patients, specimens, assays and references, as the catalog has them."""

from collections.abc import Iterable, Iterator
from typing import Any

import dagster as dg

from ct_assets.asset_checks import usable_result, usable_spec
from ct_assets.asset_keys import group_of, key_of
from ct_assets.event_log_storage import commit, kept_open
from ct_assets.partitions import definition
from ct_assets.runs import partitions_of, sign
from ct_assets.step_assets import BATCH
from ct_assets.version_tags import DATA_VERSION, registry_tags
from ctcore.cohorts import registry
from ctcore.intake.raw_files import check_references, look
from ctcore.project import Project
from resources import CtProject

_DESCRIPTIONS = {
    "patient": "The people of the cohort, as registered: one partition a patient.",
    "specimen": "What was taken from them: one partition a specimen.",
    "assay": "What was measured, with its raw files and their digests: one partition an assay.",
    "reference": "Outside files that steps use, with version and content digest: one partition a reference.",
}


PARENTS = {"patient": None, "specimen": "patient", "assay": "specimen", "reference": None}


def registry_assets(project: Project) -> list[dg.AssetsDefinition]:
    """The four registry assets. No step waits for their materializations; the catalog is what steps read."""
    return [_registry_asset(project, level, parent) for level, parent in PARENTS.items()]


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
        # As many as the sensor asks for at once (`requests.REGISTRY_A_RUN`); an event costs milliseconds, a run
        # seconds.
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
    gone, covered = registry.purged_ids(opened, level), partitions_of(context)
    found = [one for one in registry.entries(opened, level, covered) if one.partition not in gone]
    single = len(found) == 1 and len(covered) == 1
    for at in range(0, len(found), BATCH):
        some = found[at : at + BATCH]
        for entry in some:
            yield _event(key_of(opened, level), entry, above, single=single)
        commit(context.instance)
        registry.mark_reported(opened, some)
    absent = set(covered) - {entry.partition for entry in found} - gone
    if absent:
        raise dg.Failure(f"not registered: {', '.join(sorted(absent)[:20])}", allow_retries=False)


def tell(project: Project, instance: dg.DagsterInstance, level: str, keys: Iterable[str]) -> None:
    """Report these registry nodes and the check of their level as they are now, as events without a run.

    A run of Dagster's takes a third of a second, and says nothing beside them.
    """
    parent = PARENTS[level]
    above = key_of(project, parent) if parent else None
    gone = registry.purged_ids(project, level)
    found = [one for one in registry.entries(project, level, keys) if one.partition not in gone]
    with kept_open(instance):
        for entry in found:
            instance.report_runless_asset_event(_materialization(key_of(project, level), entry, above))
        if level != "reference":
            instance.report_runless_asset_event(_evaluation(usable_result(project, level)))
        commit(instance)
    registry.mark_reported(project, found)


def _evaluation(found: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    assert found.asset_key is not None and found.check_name is not None
    return dg.AssetCheckEvaluation(
        asset_key=found.asset_key,
        check_name=found.check_name,
        passed=found.passed,
        metadata=found.metadata,
        severity=found.severity,
    )


def _event(key: dg.AssetKey, entry: registry.RegistryNode, parent: dg.AssetKey | None, single: bool) -> Any:
    if not single:
        return _materialization(key, entry, parent)
    version = dg.DataVersion(entry.data_version)
    return dg.MaterializeResult(metadata=_metadata(entry), data_version=version, tags=registry_tags(parent))


def _materialization(
    key: dg.AssetKey, entry: registry.RegistryNode, parent: dg.AssetKey | None
) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        key,
        partition=entry.partition,
        metadata=_metadata(entry),
        tags={DATA_VERSION: entry.data_version, **registry_tags(parent)},
    )


def _metadata(entry: registry.RegistryNode) -> dict[str, Any]:
    return {
        "digest": entry.data_version,
        **({"excluded": entry.excluded} if entry.excluded else {}),
        "columns": ", ".join(sorted(entry.declared["attributes"])) or "none",  # their values are personal data
        "files": dg.MetadataValue.json(dict(entry.declared["files"])),
        **({"parent": entry.parent} if entry.parent and not entry.excluded else {}),
    }
