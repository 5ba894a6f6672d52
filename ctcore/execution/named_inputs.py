"""What a result made elsewhere was made from, as a person names it; the rest is as the catalog has it today."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from sqlalchemy import Connection, select

from ctcore.catalog.tables import materialization
from ctcore.catalog.tombstones import is_purged
from ctcore.errors import Usage
from ctcore.governance.hints import not_found
from ctcore.governance.masking import UNMASKED
from ctcore.inputs.contributors import Contributors
from ctcore.inputs.current import current_inputs
from ctcore.inputs.exclusions import why_excluded, why_none_is_used
from ctcore.inputs.key import Preparation, PreparedCall, key_of, prepare
from ctcore.inputs.resolve import ROLE, Inputs, ResolvedInput
from ctcore.intake.references import history
from ctcore.lineage.target import choose
from ctcore.lineage.walk import makings
from ctcore.model.column import Column, Value
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.node import Node
from ctcore.model.values import convert_text
from ctcore.project import Project
from ctcore.snapshot.snapshot import Snapshot
from ctcore.snapshot.versions import Places
from ctcore.step import Step
from ctcore.store.digest import canonical_json

SHOWN = 20


@dataclass(frozen=True)
class NamedInputs:
    """As typed. `members`: `[LEVEL/]ID[=ROLE]`, all of them; `inputs`: `STEP/PARTITION[@MAKING]`, where another version
    than today's was taken; `references`: the version of each key."""

    members: Sequence[str] = ()
    inputs: Sequence[str] = ()
    references: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Found:
    """What the names mean: data versions by node, members by level, and roles by entity."""

    versions: dict[Node, str] = field(default_factory=dict)
    members: dict[str, Places] | None = None
    roles: dict[Node, str] = field(default_factory=dict)


def prepare_named(
    project: Project,
    step: Step,
    keys: Sequence[str],
    params: Mapping[str, object],
    named: NamedInputs,
    connection: Connection,
) -> tuple[Preparation, list[str]]:
    """The calls of these partitions with what is named; and the problems of the names."""
    names = _Names(project, step, connection)
    found, problems = _Found(), list[str]()
    problems += names.references(named.references, found)
    if len(keys) == 1 and names.place(keys[0]) >= 0:
        problems += names.members(named.members, found)
        problems += names.inputs(named.inputs, keys[0], found)
    if problems:
        return Preparation(), problems
    done = prepare(project, step, keys, params, connection, found.versions, found.members)
    problems += names.unused(found, done)
    if found.roles:
        done.ready = {key: _with_roles(step, call, names, found.roles) for key, call in done.ready.items()}
    return done, problems


def _with_roles(step: Step, call: PreparedCall, names: "_Names", roles: Mapping[Node, str]) -> PreparedCall:
    """The call with the roles that its members had; the others have those of the sheet."""
    edges = tuple(
        edge._replace(version=names.role_of((edge.asset, edge.partition), roles, edge.version))
        if edge.input == f"{ROLE}{step.role}"
        else edge
        for edge in call.edges
    )
    return replace(call, edges=edges, key=key_of(call.recipe, call.node, edges))


class _Names:
    """Typed names of one step's inputs, in one state of the catalog."""

    def __init__(self, project: Project, step: Step, connection: Connection) -> None:
        self.project, self.step, self.connection = project, step, connection
        self.snapshot: Snapshot
        self.inputs_of: Inputs
        self.snapshot, self.inputs_of = current_inputs(project, connection)

    def place(self, key: str) -> int:
        return self.snapshot.locate(self.step.name, [key])[0]

    def references(self, named: Mapping[str, str], found: _Found) -> Iterator[str]:
        """Versions of references, from their history."""
        known = history(self.connection) if named else {}
        for key, version in named.items():
            if key not in self.step.references:
                declared = ", ".join(self.step.references) or "none"
                yield f"--reference {key}: {self.step.name} uses no such reference; it uses: {declared}"
                continue
            held = [one for one in known.get(key, ()) if version in (one.version, one.data_version)]
            if held:
                found.versions["reference", key] = held[0].data_version
            else:
                there = ", ".join(dict.fromkeys(one.version for one in known.get(key, ()))) or "none"
                yield f"--reference {key}={version}: no such version is on record; there is: {there}"

    def members(self, named: Sequence[str], found: _Found) -> Iterator[str]:
        """Members by level, and their roles. Whoever is excluded cannot be one."""
        wants = [want for want in self.inputs_of.wants(self.step) if want.what == "step" and _is_below(want)]
        if not named:
            return
        if not wants:
            yield f"--member: {self.step.name} has no members: none of its inputs is of a level below {self.step.level}"
            return
        levels = list(dict.fromkeys(self.snapshot.shape.levels[want.asset] for want in wants))
        flags = {level: np.zeros(self.snapshot.size(level), np.bool_) for level in ENTITY_LEVELS}
        for text in named:
            name, equals, role = text.partition("=")
            if equals and self.step.role is None:
                yield f"--member {text}: {self.step.name} declares no role; leave out ={role}"
            level, cut, key = name.partition("/")
            if not cut:
                level, key = self._level_of(name, levels), name
            at = self.snapshot.locate(level, [key])[0] if level in ENTITY_LEVELS else -1
            if at < 0:
                unknown = f"{level!r} is no level: {', '.join(ENTITY_LEVELS)}"
                yield f"--member {text}: {not_found(self.project, level, key) if level in ENTITY_LEVELS else unknown}"
                continue
            flags[level][at] = True
            if equals and self.step.role is not None:
                value, problem = self._role(role)
                found.roles[level, key] = canonical_json(value).decode()
                yield from [f"--member {text}: {role!r} {problem}"] * (problem is not None)
        related = self.inputs_of.hierarchy.related
        found.members = {}
        for level in ENTITY_LEVELS:
            mine = [related(some, other, level) for other, some in flags.items() if some.any()]
            found.members[level] = np.flatnonzero(np.logical_or.reduce(mine)) if mine else np.zeros(0, np.int64)
        for want in wants:
            yield from self._excluded(want, found.members[self.snapshot.shape.levels[want.asset]])

    def _role(self, text: str) -> tuple[Value, str | None]:
        """A role as the column of the sheet has it, and its problem; blank is none."""
        level, _, name = (self.step.role or "").partition(".")
        column = self.project.settings.levels[level].columns.get(name, Column(name))  # type: ignore[index]
        return convert_text(text, column) if text else (None, None)

    def _level_of(self, key: str, levels: Sequence[str]) -> str:
        """The level of a bare ID: that of the inputs, or else any that has it."""
        listed = [*levels, *(level for level in ENTITY_LEVELS if level not in levels)]
        return next((level for level in listed if self.snapshot.locate(level, [key])[0] >= 0), levels[0])

    def _excluded(self, want: ResolvedInput, places: Places) -> Iterator[str]:
        """Of these members, those that may not be used, and why."""
        up = self.project.steps[want.asset]
        barred = places[~self.inputs_of.hierarchy.usable_for(self.step.name, up.level)[places]].tolist()
        why = why_none_is_used(self.connection, self.inputs_of, self.step.name, up.level, barred)
        lacking = [at for at in places[~self.inputs_of.nodes(up)[places]].tolist() if at not in why]
        why |= why_excluded(self.connection, self.inputs_of, up, lacking)
        for at, reasons in list(why.items())[:SHOWN]:
            name = self.snapshot.name(up.level, at)
            said = "; ".join(UNMASKED.mask_words(one.words) for one in reasons)  # who asks by name is told why
            yield f"member {up.level}/{name} cannot be used: {said}; `ct why {up.level}/{name}`"
        if len(why) > SHOWN:
            yield f"… and {len(why) - SHOWN} more members that cannot be used"

    def inputs(self, named: Sequence[str], key: str, found: _Found) -> Iterator[str]:
        """The version of each named input: a making by its number or data version, or today's."""
        ups = dict.fromkeys(self.step.inputs.values())
        for text in named:
            name, cut, which = text.partition("@")
            asset, _, partition = name.partition("/")
            if asset not in ups:
                yield f"--input {text}: {self.step.name} takes nothing from {asset!r}; its inputs: {', '.join(ups)}"
                continue
            mine = (materialization.c.asset == asset) & (materialization.c.partition == partition)
            ids = self.connection.execute(select(materialization.c.id).where(mine, ~is_purged())).scalars().all()
            made = list(makings(self.connection, ids).values())
            if not made:
                yield f"--input {text}: {name} was never made; {self.project.steps[asset].way_to(partition)}"
                continue
            try:
                one = choose(made, which if cut else "current", name)
            except Usage as error:
                yield f"--input {text}: {error}"
                continue
            if not one.current and self._holds_others(asset, partition):
                yield f"--input {text}: somebody was inside who may not be used today; take the making of today"
            found.versions[asset, partition] = one.data_version

    def _holds_others(self, asset: str, partition: str) -> bool:
        """Whether some making of an input contained somebody whose consent does not allow the step."""
        if not self.inputs_of.hierarchy.forbids(self.step.name):
            return False
        within = Contributors.permitted(lambda: self.connection, self.snapshot, self.inputs_of, self.step.name)
        return partition in within.ever.get(asset, ())

    def unused(self, found: _Found, done: Preparation) -> Iterator[str]:
        """Names that no call takes: they would be lost without a word."""
        taken = {(edge.asset, edge.partition) for call in done.ready.values() for edge in call.edges}
        for node in found.versions if done.ready else ():
            if node not in taken:
                yield f"--input {node[0]}/{node[1]}: it is of no member; name the member with --member {node[1]}"

    def role_of(self, node: Node, roles: Mapping[Node, str], otherwise: str) -> str:
        """The named role of an entity: its own, or that of the nearest above it."""
        at = self.snapshot.locate(node[0], [node[1]])[0]
        for level in reversed(ENTITY_LEVELS[: ENTITY_LEVELS.index(node[0]) + 1]):  # type: ignore[arg-type]
            above = int(self.inputs_of.hierarchy.ancestors(node[0], level)[at])
            said = roles.get((level, self.snapshot.name(level, above)))
            if said is not None:
                return said
        return otherwise


def _is_below(want: ResolvedInput) -> bool:
    return want.members is not None or want.downward
