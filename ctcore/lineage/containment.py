"""Which makings contain a person. It goes by content: a result that was also made without the person reveals nothing
of them."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import Connection, and_, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.lost_inputs import makings_of_lost_inputs
from ctcore.catalog.tables import consent, entity, event, materialization, purge, tombstone
from ctcore.cohorts.descendants import descendants_of
from ctcore.lineage.impact import Pairs, first_makings, pairs_of
from ctcore.lineage.walk import Making, descendant_walk, makings, walk_start, walked_ids
from ctcore.model.masked_text import Words
from ctcore.model.node import Content, Node
from ctcore.project import Project
from ctcore.steps.graph import StepGraph


@dataclass(frozen=True)
class Containment:
    """A person: `own` are the registry nodes, `makings` contain them, `gone` of these are purged already.

    `unsure` are those of `makings` that may contain them, as something that they were made from is lost. `spared` were
    only built from such content as was also made without them. `moved` once belonged to them, and are others' today.
    `contents` were never made without them.
    """

    own: frozenset[Node]
    makings: Mapping[int, Making]
    spared: Mapping[int, Making]
    moved: Mapping[Node, Words]
    gone: frozenset[int]
    contents: frozenset[Content]
    unsure: frozenset[int] = frozenset()

    @property
    def ids(self) -> set[str]:
        return {name for _, name in self.own}

    @cached_property
    def any_id(self) -> re.Pattern[str]:
        """Finds the IDs of the person and of all below in a text."""
        return id_pattern(self.ids)

    @property
    def left(self) -> dict[int, Making]:
        """Makings that are not purged yet."""
        return {number: made for number, made in self.makings.items() if number not in self.gone}


def id_pattern(ids: Iterable[str]) -> re.Pattern[str]:
    """Finds any of these IDs in a text."""
    listed = "|".join(map(re.escape, sorted(ids)))
    # An ID may hold a dot, and still a dot ends it here: P1 is found in `P1.bam` and at the end of a sentence. In P1.2
    # it is found too, and rather too much is taken for theirs than too little.
    return re.compile(rf"(?<![A-Za-z0-9_-])(?:{listed})(?![A-Za-z0-9_-])")


def cohort_derived_steps(steps: StepGraph) -> set[str]:
    """Steps of cohorts, and everything made from them: their names alone do not show who is inside."""
    found: set[str] = set()
    for step in steps:
        if step.level == "cohort" or found.intersection(step.inputs.values()):
            found.add(step.name)
    return found


def containment_of(project: Project, connection: Connection, patient: str) -> Containment:
    """Everything that was ever made with a patient inside: their own nodes, and everything built from those."""
    own, moved = descendants_of(connection, [("patient", patient)])
    own |= _purged(connection, patient)
    first = set(first_makings(project, connection, own, None).nodes)
    unknown = makings_of_lost_inputs(connection, ((step.name, step.level) for step in project.steps)) - first
    ids = walked_ids(connection, descendant_walk(walk_start(first | unknown)))
    made = makings(connection, ids)
    pairs = pairs_of(connection, ids)
    alike = _alike(connection, ids)
    found = _contain(first | unknown, made, pairs, alike)
    unsure = found - _contain(first, made, pairs, alike) if unknown else set[int]()
    gone = select(tombstone.c.materialization).where(in_keys(tombstone.c.materialization, ids))
    return Containment(
        frozenset(own),
        {number: made[number] for number in sorted(found)},
        {number: one for number, one in made.items() if number not in found},
        moved,
        frozenset(connection.execute(gone).scalars()),
        frozenset(content for content, numbers in alike.items() if numbers <= found),
        frozenset(unsure),
    )


def _purged(connection: Connection, patient: str) -> set[Node]:
    """Everybody purged with a patient, under their current places in the catalog; nobody, once consent was given
    again."""
    restored = select(consent.c.at).join(entity, entity.c.seq == consent.c.entity)
    restored = restored.where(entity.c.level == "patient", entity.c.id == patient, consent.c.record.is_not(None))
    since = max(connection.execute(restored).scalars(), default="")
    if connection.execute(select(purge.c.id).where(purge.c.patient == patient, purge.c.at > since)).first() is None:
        return set()
    mine = (event.c.kind == "purge") & (event.c.subject == f"patient/{patient}") & (event.c.at > since)
    bodies = map(json.loads, connection.execute(select(event.c.body).where(mine)).scalars())
    return {(level, who) for one in bodies for level, _, who in (name.partition("/") for name in one.get("own", ()))}


def _alike(connection: Connection, ids: Iterable[int]) -> dict[Content, set[int]]:
    """All makings with the content of one of these."""
    one, other = materialization.alias(), materialization
    same = and_(
        one.c.asset == other.c.asset,
        one.c.partition == other.c.partition,
        one.c.data_version == other.c.data_version,
    )
    columns = (other.c.asset, other.c.partition, other.c.data_version, other.c.id)
    mine = in_keys(one.c.id, ids)
    found: dict[Content, set[int]] = defaultdict(set)
    for *content, number in connection.execute(select(*columns).select_from(one.join(other, same)).where(mine)):
        found[content[0], content[1], content[2]].add(number)
    return found


def _contain(
    first: Iterable[int], made: Mapping[int, Making], pairs: Pairs, alike: Mapping[Content, set[int]]
) -> set[int]:
    """From results that take the person directly, to results of content that was never made without them."""
    without = {content: set(numbers) for content, numbers in alike.items()}
    found = set(first)
    waiting = list(found)
    for number in waiting:
        others = without[made[number].content]
        others.discard(number)
        for taker in () if others else pairs.get(number, ()):
            if taker not in found:
                found.add(taker)
                waiting.append(taker)
    return found
