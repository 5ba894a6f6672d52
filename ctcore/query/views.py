"""The tables that people read: the cohort, its files, what was made, measured, and is true."""

import json
import sys
from collections.abc import Iterator
from functools import cached_property, partial

from sqlalchemy import select

from ctcore.catalog.tables import artifact, entity, file, materialization, member, reproduction
from ctcore.intake.references import VersionUse, history, uses
from ctcore.model.levels import ENTITY_LEVELS, LEVELS, Level
from ctcore.model.reasons import Verdict
from ctcore.query.readable import Gate, Names, level_names
from ctcore.query.result_rows import HISTORY, IS_CURRENT, NODE, RESULTS, WIDE, ReadableResults, wide_of
from ctcore.query.table import Row, View, distinct_names, storable_value
from ctcore.staleness.verdicts import Verdicts, evaluate

_BASE = {
    "patient": (("patient_id", "text"),),
    "specimen": (("specimen_id", "text"), ("patient_id", "text")),
    "assay": (("assay_id", "text"), ("specimen_id", "text"), ("patient_id", "text")),
}


class Views:
    """All tables of a project, through the gate. A table is read when it is first used."""

    def __init__(self, gate: Gate, verdicts: Verdicts | None = None) -> None:
        self.gate, self.project = gate, gate.project
        self.verdicts = verdicts
        listed = [
            *(
                View(level_names(level), self._declared(level), partial(self._entities, level))
                for level in ENTITY_LEVELS
            ),
            View("files", _FILES, self._files),
            View("artifacts", _ARTIFACTS, self._artifacts),
            View("results", RESULTS, partial(self._results, only_current=True)),
            View("results_history", (*RESULTS, *HISTORY), partial(self._results, only_current=False)),
            View("members", _MEMBERS, self._members),
            View("verdicts", _VERDICTS, self._verdicts),
            View("reference_versions", _REFERENCES, self._references),
            View("reproductions", _REPRODUCTIONS, self._reproductions),
        ]
        self.all = {view.name: view for view in listed}

    def _declared(self, level: Level) -> tuple[tuple[str, str], ...]:
        own = [*_BASE[level], ("usable", "boolean")]
        declared = [(column.name, column.type) for column in self.project.settings.levels[level].columns.values()]
        names = distinct_names([name for name, _ in (*own, *declared)])
        return tuple(zip(names, [kind for _, kind in (*own, *declared)], strict=True))

    def _entities(self, level: Level) -> Iterator[Row]:
        declared = list(self.project.settings.levels[level].columns)
        shows, usable = self.gate.shows(level).tolist(), self.gate.usable(level).tolist()
        hierarchy, entities = self.gate.inputs.hierarchy, self.gate.snapshot.entities
        order = reversed(ENTITY_LEVELS[: ENTITY_LEVELS.index(level) + 1])
        chains = [map(entities[one].ids.__getitem__, hierarchy.ancestors(level, one).tolist()) for one in order]
        rows = self.gate.connection.execute(
            select(entity.c.attributes).where(entity.c.level == level).order_by(entity.c.seq)
        ).scalars()
        # By position: rows and flags are of one state (`catalog.read` is one transaction), and both in the order of
        # registration.
        for shown, may, text, *ids in zip(shows, usable, rows, *chains, strict=True):
            if shown:
                said = json.loads(text)
                yield (*ids, may, *(storable_value(said.get(name)) for name in declared))

    def _files(self) -> Iterator[Row]:
        names = {level: self.gate.names(level) for level in ENTITY_LEVELS}
        fields = (file.c.role, file.c.path, file.c.digest, file.c.size, file.c.problem)
        joined = select(entity.c.level, entity.c.id, *fields).join(file, file.c.entity == entity.c.seq)
        for row in self.gate.connection.execute(joined.order_by(entity.c.seq, file.c.role)):
            if row.id in names[row.level]:
                yield tuple(row)

    def _artifacts(self) -> Iterator[Row]:
        made = materialization.c
        fields = (made.id, made.data_version, made.folder, made.size, made.reason, made.started_at)
        rows = self.gate.connection.execute(
            select(made.asset, made.partition, *fields, made.seconds, made.run_id, artifact.c.checked_at)
            .add_columns(made.actor, made.host, made.git, made.undeclared)
            .join(artifact, IS_CURRENT)
            .order_by(made.id)
        )
        for asset, partition, number, version, folder, size, reason, *rest, undeclared in rows:
            if partition in self._shown.get(asset, ()):
                clean = partition in self._clean[asset]
                content = (version, folder) if clean else (None, None)
                head = (asset, self._level(asset), partition, number, *content, size, self.gate.mask.text(reason))
                yield (*head, *rest, undeclared if clean else None)

    def _reproductions(self) -> Iterator[Row]:
        made, again = materialization.c, reproduction.c
        fields = (again.at, again.actor, again.host, again.run_id, again.data_version, again.differs)
        rows = self.gate.connection.execute(
            select(made.asset, made.partition, made.id, *fields)
            .join(reproduction, again.materialization == made.id)
            .order_by(again.id)
        )
        for asset, partition, number, at, actor, host, run_id, version, differs in rows:
            if partition in self._shown.get(asset, ()):
                came = version if partition in self._clean[asset] else None
                node = (asset, self._level(asset), partition)
                yield (*node, number, at, differs == "[]", differs, came, actor, host, run_id)

    def _results(self, only_current: bool) -> Iterator[Row]:
        return ReadableResults(self.gate, self._clean, self._always_clean).rows(only_current)

    def view(self, name: str) -> View | None:
        """A table by its name; `wide_NAME` of a step or an analysis is made when it is asked for."""
        if (view := self.all.get(name)) is not None or not name.lower().startswith(WIDE):
            return view
        known = (*self.project.steps.order, *self.project.settings.analyses)
        found = next((one for one in known if one.lower() == name.lower().removeprefix(WIDE)), None)
        return wide_of(ReadableResults(self.gate, self._clean, self._always_clean), found) if found else None

    def _members(self) -> Iterator[Row]:
        """Two streams in the order of makings: the current artifacts, and their members."""
        names, made = {step: self._able(step) for step in self._shown}, materialization.c
        gathering = made.id.in_(select(member.c.materialization))
        pointers = select(made.id, made.asset, made.partition).join(artifact, IS_CURRENT).where(gathering)
        fields = (member.c.level, member.c.entity, member.c.role, member.c.materialization)
        order = (member.c.materialization, member.c.level, member.c.entity)
        current = iter(self.gate.connection.execute(pointers.order_by(made.id)))
        at, asset, partition = 0, "", ""
        for level, who, role, number in self.gate.connection.execute(select(*fields).order_by(*order)):
            # Both streams go up by the number of the making; members of earlier makings have no pointer and are passed
            # over.
            while at < number:
                at, asset, partition = next(current, (sys.maxsize, "", ""))
            if at == number and partition in self._shown.get(asset, ()) and who in names[asset].get(level, ()):
                yield (asset, self._level(asset), partition, level, who, role, number)

    def _references(self) -> Iterator[Row]:
        used = uses(self.gate.connection)
        for key, versions in history(self.gate.connection).items():
            for one in versions:
                use = used.get(key, {}).get(one.data_version, VersionUse(0, 0))
                said = (one.version, one.kind, one.path, one.digest, one.size)
                yield (key, *said, one.at, one.until, one.actor, one.reason, use.nodes, use.makings)

    def _verdicts(self) -> Iterator[Row]:
        found = self.verdicts or evaluate(self.project)
        listable = {level: self.gate.names(level) for level in LEVELS}
        for step in self.project.steps:
            states = dict(zip(found.state.snapshot.names(step.name), found.states(step.name), strict=True))
            listed = {one.partition: one for one in found.listed(step.name)}
            for name, state in states.items():
                is_node = state != "excluded" or name in listed
                if is_node and name in listable[step.level]:
                    yield (step.name, step.level, name, state, *self._said(found, step.name, name, listed.get(name)))

    def _said(self, found: Verdicts, step: str, name: str, verdict: Verdict | None) -> Row:
        """The kinds of the reasons, all reasons as text, and whether one was accepted."""
        if verdict is None:
            return "", "", name in found.accepted[step]
        return " ".join(verdict.kinds), why(self.gate, verdict), bool(verdict.waived)

    def _level(self, asset: str) -> str:
        return self.gate.snapshot.shape.levels.get(asset, "")

    @cached_property
    def _shown(self) -> dict[str, Names]:
        """Which nodes of each step may be read; removed steps have none."""
        steps = self.project.steps
        return {
            step.name: self.gate.ids_where(step.level, self.gate.usable_for(step.name, step.level)) for step in steps
        }

    def _able(self, step: str) -> dict[str, Names]:
        """By level, who may be shown as a member of a step."""
        return {level: self.gate.ids_where(level, self.gate.usable_for(step, level)) for level in ENTITY_LEVELS}

    @cached_property
    def _clean(self) -> dict[str, Names]:
        """Nodes whose current results may be read."""
        return {step.name: self.gate.ids_where(step.level, self.gate.is_clean(step)) for step in self.project.steps}

    @cached_property
    def _always_clean(self) -> dict[str, Names]:
        """Nodes whose results of all times may be read."""
        gate, steps = self.gate, self.project.steps
        able = {step.name: gate.usable_for(step.name, step.level) for step in steps}
        return {step.name: gate.ids_where(step.level, able[step.name], gate.was_dirty(step)) for step in steps}


_FILES = (("level", "text"), ("entity", "text"), ("role", "text"), ("path", "text"), ("digest", "text"))
_FILES = (*_FILES, ("size", "integer"), ("problem", "text"))
_ARTIFACTS = (*NODE, ("materialization", "integer"), ("data_version", "text"), ("folder", "text"), ("size", "integer"))
_ARTIFACTS = (*_ARTIFACTS, ("reason", "text"), ("made_at", "text"), ("seconds", "real"), ("run_id", "text"))
_ARTIFACTS = (*_ARTIFACTS, ("checked_at", "text"), ("actor", "text"), ("host", "text"), ("git", "text"))
_ARTIFACTS = (*_ARTIFACTS, ("undeclared", "text"))
_REPRODUCTIONS = (*NODE, ("materialization", "integer"), ("at", "text"), ("same", "boolean"), ("differs", "text"))
_REPRODUCTIONS = (*_REPRODUCTIONS, ("data_version", "text"), ("actor", "text"), ("host", "text"), ("run_id", "text"))
_MEMBERS = (*NODE, ("member_level", "text"), ("member", "text"), ("role", "text"), ("materialization", "integer"))
_VERDICTS = (*NODE, ("state", "text"), ("kinds", "text"), ("why", "text"), ("accepted", "boolean"))
_REFERENCES = (("key", "text"), ("version", "text"), ("kind", "text"), ("path", "text"), ("digest", "text"))
_REFERENCES = (*_REFERENCES, ("size", "integer"), ("since", "text"), ("until", "text"), ("actor", "text"))
_REFERENCES = (*_REFERENCES, ("reason", "text"), ("nodes", "integer"), ("makings", "integer"))


def why(gate: Gate, verdict: Verdict) -> str:
    """All reasons as text, without names of people who may not be used."""
    return "; ".join(gate.mask.mask_words(reason.sentence) for reason in verdict.reasons)
