"""Finds purged nodes in Dagster's storage, on SQLite and PostgreSQL. `ct_assets.purged_events` deletes them."""

import json
import re
import sqlite3
from collections.abc import Container, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, select

from ctcore.catalog.tables import event, materialization, purge, tombstone
from ctcore.lineage.containment import Containment, cohort_derived_steps
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.project import Project
from ctcore.projects.dagster_home import schema_of
from ctcore.projects.dagster_tables import Rows, Schema

_MADE = ("ASSET_MATERIALIZATION", "ASSET_OBSERVATION")
_SAID = (None, "STEP_OUTPUT", "STEP_FAILURE")
_OF_RUN = ("PIPELINE_FAILURE", "ASSET_CHECK_EVALUATION")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PARTITION = re.compile(r'"partition": "([^"]*)"')


@dataclass(frozen=True)
class PurgedNodes:
    """The purged nodes that Dagster's storage must not mention in events before `before`.

    `assets`: keys of the project's assets; `judged`: keys of assets whose check results go too; `versions`: data
    versions that no other result has; `made`: runs that made the `nodes`.
    """

    home: Path
    ids: frozenset[str]
    assets: frozenset[str]
    judged: frozenset[str]
    versions: frozenset[str]
    before: str
    made: frozenset[str]
    nodes: frozenset[tuple[str, str]]
    project: str | None  # of several in one instance
    schema: Schema | None = None  # on PostgreSQL

    def words(self, connection: Rows, tables: Container[str]) -> list[str]:
        """What a database with these tables still holds, each finding once."""
        looks = {
            "event_logs": (self._events, "events or messages of purged nodes"),
            "asset_keys": (self._last, "a purged node as the last materialization of its asset"),
            "asset_event_tags": (self._tags, "data versions of purged nodes"),
            "asset_check_executions": (self._checks, "check results of purged nodes"),
        }
        return [f"has {said}" for table, (look, said) in looks.items() if table in tables and any(look(connection))]

    def _events(self, connection: Rows) -> Iterator[bool]:
        columns = "run_id, dagster_event_type, timestamp, step_key, asset_key, partition"
        for run, kind, when, step, asset, who in connection.execute(f"SELECT {columns} FROM event_logs"):
            # Compared as texts: both are UTC in one form, in which the order of texts is the order of times.
            at = str(when)
            if asset in self.assets and who in self.ids:
                yield kind in _MADE or at < self.before
            elif run in self.runs and at < self.before:
                told_of = kind in _OF_RUN or (kind in _SAID and step in self.steps)
                yield told_of or (run in self.made and (asset, who) in self.nodes)
        made = f"SELECT asset_key, event FROM event_logs WHERE dagster_event_type IN {(*_MADE, 'STEP_OUTPUT')}"
        for asset, said in connection.execute(made):
            yield (asset is None or asset in self.assets) and self._has_version(said)

    def _last(self, connection: Rows) -> Iterator[bool]:
        rows = "SELECT asset_key, last_materialization FROM asset_keys WHERE last_materialization IS NOT NULL"
        for asset, said in connection.execute(rows):
            found = _PARTITION.search(said)
            is_theirs = found is not None and found[1] in self.ids
            yield asset in self.assets and (is_theirs or self._has_version(said))

    def _tags(self, connection: Rows) -> Iterator[bool]:
        rows = "SELECT asset_key, value FROM asset_event_tags WHERE key = 'dagster/data_version'"
        yield from (asset in self.assets and self._has_version(value) for asset, value in connection.execute(rows))

    def _checks(self, connection: Rows) -> Iterator[bool]:
        rows = "SELECT asset_key, evaluation_event_timestamp FROM asset_check_executions"
        yield from (
            asset in self.judged and at is not None and str(at) < self.before for asset, at in connection.execute(rows)
        )

    def _has_version(self, said: str) -> bool:
        return not self.versions.isdisjoint(_DIGEST.findall(said))

    @cached_property
    def runs(self) -> frozenset[str]:
        """IDs of the runs that made purged nodes, and of the single-partition runs of the person's nodes."""
        if self.schema is not None:
            return self._of(self.schema) if "run_tags" in self.schema.tables else self.made
        place = self.home / "history" / "runs.db"
        if not place.is_file():
            return self.made
        with closing(sqlite3.connect(f"file:{quote(str(place))}?mode=ro", uri=True, timeout=30)) as connection:
            return self._of(connection)

    def _of(self, connection: Rows) -> frozenset[str]:
        rows = list(connection.execute("SELECT run_id, key, value FROM run_tags"))
        theirs = {run for run, key, value in rows if key == "dagster/partition" and value in self.ids}
        if self.project is not None:
            theirs &= {run for run, key, value in rows if key == "ct/project" and value == self.project}
        return self.made | theirs

    @cached_property
    def steps(self) -> frozenset[str]:
        return frozenset(json.loads(key)[-1] for key in self.judged)


def purged_nodes(project: Project, connection: Connection, found: Containment, versions: frozenset[str]) -> PurgedNodes:
    """What Dagster's storage must no longer hold since the last purge of the patient."""
    patients = [who for level, who in found.own if level == "patient"]
    stones = tombstone.join(purge, purge.c.id == tombstone.c.purge)
    stones = stones.join(materialization, materialization.c.id == tombstone.c.materialization)
    mine = (
        select(materialization.c.asset, materialization.c.partition, materialization.c.run_id)
        .select_from(stones)
        .distinct()
    )
    made = connection.execute(mine.where(purge.c.patient.in_(patients))).all()
    levels = {level for level, _ in found.own}
    steps = {step.name for step in project.steps if step.level in levels}
    judged = {*steps, *cohort_derived_steps(project.steps), *levels, *(row.asset for row in made)}
    assets = {*judged, *project.steps.order, *ENTITY_LEVELS}
    subjects = [f"patient/{who}" for who in patients]
    begun = select(event.c.at).where(event.c.kind == "purge", event.c.subject.in_(subjects))
    last = max(connection.execute(begun).scalars(), default="")

    def key(name: str) -> str:
        return json.dumps([*([project.id] if project.is_shared else []), name])

    before = last[:26].replace("T", " ")  # as Dagster writes it on SQLite: UTC, without an offset
    shared = project.id if project.is_shared else None
    ids = frozenset(who for _, who in found.own)
    runs = frozenset(row.run_id for row in made if row.run_id is not None)
    nodes = frozenset((key(row.asset), row.partition) for row in made)
    of, by = frozenset(map(key, assets)), frozenset(map(key, judged))
    schema = None if project.catalog.is_sqlite else Schema(connection, schema_of(project))
    return PurgedNodes(project.dagster_home, ids, of, by, versions, before, runs, nodes, shared, schema)
