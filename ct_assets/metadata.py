"""Metadata of materializations for the Dagster UI, read from the ledger for many nodes in a few statements."""

import base64
import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import dagster as dg
from sqlalchemy import Connection, Table, select

from ct_assets.compute_logs import fenced, listed
from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import edge, materialization, member, output, recipe
from ctcore.execution.materialize import Outcome
from ctcore.execution.slurm.accounting import JobUsage, usage_by_key
from ctcore.governance.masking import Mask, mask_of
from ctcore.lineage.attribution import Attribution, attributions_of
from ctcore.model.reasons import MADE_ELSEWHERE, short_digest, version_text
from ctcore.project import Project
from ctcore.query.readable import Gate
from ctcore.staleness.undeclared_reads import masked_reads, sentences
from ctcore.staleness.verdicts import evaluate
from ctcore.staleness.waivers import accepted_sources, any_waiver
from ctcore.step import Step
from ctcore.store.digest import digest_value

SHOWN_ROWS = 20
EXCLUDED = "contains somebody who may not be used; ct keeps its record and shows it to nobody"
PICTURE_BYTES = 150_000


def describe(project: Project, step: Step, outcomes: Sequence[Outcome]) -> dict[int, dict[str, Any]]:
    """Metadata by materialization id."""
    ids = [one.materialization for one in outcomes if one.materialization is not None]
    whys = {one.materialization: one for one in outcomes}
    with project.catalog.read() as connection:
        made = connection.execute(
            select(materialization, recipe.c.code, recipe.c.parameters, recipe.c.environment)
            .join(recipe, recipe.c.id == materialization.c.recipe)
            .where(in_keys(materialization.c.id, ids))
        ).all()
        edges = _grouped(connection, edge, ids)
        members = _grouped(connection, member, ids)
        files = _grouped(connection, output, ids)
        accepted = _accepted(project, connection, step, {row.partition for row in made})
        withheld = _withheld(project, connection, step)
        stories = attributions_of(connection, ids)
    by = usage_by_key(project, {row.key for row in made})
    seen = mask_of(project)
    return {
        row.id: {"excluded": EXCLUDED, **_memo(whys[row.id], row)}
        if row.partition in withheld
        else {
            **_facts(row),
            **_preview(project, step, row.folder),
            **_memo(whys[row.id], row),
            **_story(stories[row.id]),
            **_job(by.get(row.key)),
            "outputs": _outputs(files[row.id]),
            "inputs": _inputs(step, edges[row.id]),
            **({"members": _members(members[row.id])} if members[row.id] else {}),
            **_undeclared(project, step, row, seen),
            **({"accepted": accepted[row.partition]} if row.partition in accepted else {}),
        }
        for row in made
    }


def _withheld(project: Project, connection: Connection, step: Step) -> set[str]:
    """Partitions whose results contain somebody who may not be used, for example excluded while the run made them."""
    gate = Gate.of(project, connection)
    if not gate.bars_somebody:
        return set()
    names = gate.snapshot.names(step.name)
    return {names[at] for at in (~gate.is_clean(step)).nonzero()[0].tolist()}


def _grouped(connection: Connection, table: Table, ids: Sequence[int]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = defaultdict(list)
    for row in connection.execute(select(table).where(in_keys(table.c.materialization, ids))):
        found[row.materialization].append(row)
    return found


def _accepted(
    project: Project, connection: Connection, step: Step, partitions: set[str]
) -> dict[str, dg.MetadataValue]:
    """Partition → inputs with accepted differences."""
    if not any_waiver(connection):
        return {}
    marked, seen = evaluate(project).with_acceptances(), mask_of(project)
    found = accepted_sources(connection, step.name, partitions, marked)
    return {key: dg.MetadataValue.md(listed([seen.mask_words(one) for one in said])) for key, said in found.items()}


def _memo(outcome: Outcome, row: Any) -> dict[str, Any]:
    said = f"{'reused' if outcome.state == 'hit' else 'made'} ({outcome.why})"
    return {
        "memo": outcome.why if outcome.why.startswith(MADE_ELSEWHERE) else said,
        "digest": row.data_version,
        "size (bytes)": row.size,
        "path": dg.MetadataValue.path(f"store/{row.folder}"),
        "code": short_digest(row.code),
        "parameters": _named(json.loads(row.parameters)) or "none",
        "environment": ", ".join(f"{name} {version}" for name, version in json.loads(row.environment).items()),
        "seconds": row.seconds,
        "made at": row.started_at,
        "memo key": row.key,
    }


def _story(story: Attribution) -> dict[str, Any]:
    """Who asked, where it ran, its commit, and whether a repetition gave the same result."""
    told: dict[str, Any] = {"asked for by": story.actor, "host": story.host, "commit": story.git}
    if story.again:
        told["reproduced"] = f"{story.reproduced}: {story.again[-1].words}"
    return {name: value for name, value in told.items() if value is not None}


def _undeclared(project: Project, step: Step, row: Any, seen: Mask) -> dict[str, Any]:
    found = sentences(project, step.name, masked_reads((step.name, row.partition), row.undeclared, seen) or ())
    return {"not declared": dg.MetadataValue.md(listed(found))} if found else {}


def _named(values: Mapping[str, Any]) -> str:
    """`preset = "sr", seeds = 3`, for people; programs read the catalog."""
    return ", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items())


def _job(made: JobUsage | None) -> dict[str, Any]:
    """The Slurm job that made it: node, number of attempts, and used and requested resources."""
    if made is None:
        return {}
    listed = {
        "job": made.id,
        "job state": made.state,
        "node": made.node,
        "attempts": made.attempts,
        "job seconds": made.elapsed_s,
        "CPUs asked": made.cpus,
        "CPU efficiency": made.cpu_efficiency,
        "memory asked (MiB)": made.memory_mb,
        "memory used (MiB)": made.used_mb,
        "memory efficiency": made.memory_efficiency,
        "log": dg.MetadataValue.path(made.log) if made.log else None,
        "log tail": dg.MetadataValue.md(fenced(made.log)) if made.log else None,
    }
    return {name: value for name, value in listed.items() if value is not None}


def _facts(row: Any) -> dict[str, Any]:
    return {name.replace("_", " "): value for name, value in json.loads(row.facts).items()}


def _inputs(step: Step, edges: Sequence[Any]) -> dg.MetadataValue:
    """Inputs as a table. Values of metadata columns are personal data, so it shows only a digest of them."""
    rows = [
        {
            "input": e.input,
            "from": f"{e.asset}/{e.partition}",
            "data version": short_digest(digest_value("ct.shown.v1", e.version))
            if e.input in step.columns
            else version_text(e.version),
        }
        for e in edges
    ]
    return _table(rows, ("input", "from", "data version"))


def _members(members: Sequence[Any]) -> dg.MetadataValue:
    rows = [{"level": m.level, "member": m.entity, "role": m.role} for m in members]
    return _table(rows, ("level", "member", "role"))


def _outputs(files: Sequence[Any]) -> dg.MetadataValue:
    rows = [{"file": f.file, "bytes": str(f.size), "digest": short_digest(f.digest)} for f in files]
    return _table(rows, ("file", "bytes", "digest"))


def _table(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> dg.MetadataValue:
    shown = [dg.TableRecord(dict(row)) for row in rows[:SHOWN_ROWS]]
    if len(rows) > SHOWN_ROWS:
        rest = dict.fromkeys(columns[1:], "")
        shown.append(dg.TableRecord({columns[0]: f"… and {len(rows) - SHOWN_ROWS} more", **rest}))
    return dg.MetadataValue.table(shown, _schema(tuple(columns)))


@lru_cache
def _schema(columns: tuple[str, ...]) -> dg.TableSchema:
    return dg.TableSchema(columns=[dg.TableColumn(column, "string") for column in columns])


def _preview(project: Project, step: Step, folder: str) -> dict[str, Any]:
    """Small tables and pictures that the step declared as previews."""
    found: dict[str, Any] = {}
    for name, declared in step.outputs.items():
        path = project.store.root / folder / declared.file
        if not declared.preview or not path.is_file():
            continue
        if path.suffix == ".tsv":
            found[f"preview of {name}"] = _tsv(path)
        elif path.suffix == ".png" and path.stat().st_size <= PICTURE_BYTES:
            picture = base64.b64encode(path.read_bytes()).decode()
            found[f"preview of {name}"] = dg.MetadataValue.md(f"![{name}](data:image/png;base64,{picture})")
    return found


def _tsv(path: Path) -> dg.MetadataValue:
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    columns = list(rows[0])[:12] if rows else ["nothing"]
    return _table([{column: row[column] for column in columns} for row in rows], columns)
