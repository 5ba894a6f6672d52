"""Excluded content is shown only to a person who asks for it and gives a reason, and the disclosure is recorded."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from ctcore.catalog.tables import artifact, attempt
from ctcore.errors import Usage
from ctcore.governance.access import consent_end_time, missing_consents
from ctcore.governance.masking import UNMASKED, WAY, Mask, mask_for, mask_of
from ctcore.inputs.contributors import OF_LOST
from ctcore.lineage.walk import Lineage, Making
from ctcore.model.levels import ENTITY_LEVELS, count_text
from ctcore.model.masked_text import Plain, Words, join_words
from ctcore.model.node import Node, name_of
from ctcore.model.reasons import Verdict, node_text
from ctcore.project import Project
from ctcore.query.readable import Gate
from ctcore.staleness.verdicts import evaluate
from ctcore.util.clock import today, utc

ANYBODY = Words("who may not be used")


def shows_excluded(project: Project, excluded: bool, reason: str | None, what: str, words: Words = ANYBODY) -> bool:
    """Whether to show the excluded: `--excluded` with a reason, which is recorded first.

    `what` is the typed command. `words` explain who is excluded and why; an error quotes them as far as they were
    requested.
    """
    said = (reason or "").strip()
    if not excluded:
        if said:
            raise Usage("--reason goes with --excluded: the reason why you need to see it")
        return False
    if not said or not said.isprintable():
        who = mask_for(project, what).mask_words(words)
        raise Usage(f"{what}: {who}; say in one line why you have to see it: --reason TEXT")
    with project.catalog.write() as writer:
        writer.event("disclose", what, {"reason": said, "excluded": UNMASKED.mask_words(words)})
    return True


def disclose(project: Project, node: Node, excluded: bool, reason: str | None) -> None:
    """Pass if a node may be seen. Otherwise Usage error with the reason.

    `excluded` lets it pass for a reason: the event `disclose` records who saw what, and why.
    """
    allow(project, name_of(node), why_withheld(project, node), excluded, reason)


def allow(project: Project, what: str, words: Words | None, excluded: bool, reason: str | None) -> None:
    """Pass if nothing is excluded (no `words`), or if it was requested. Otherwise Usage error."""
    if words is None:
        return
    if not excluded:
        raise Usage(f"{what} is excluded: {mask_for(project, what).mask_words(words)}; {WAY}")
    shows_excluded(project, excluded, reason, what, Words("is excluded: ", words))


def why_withheld(project: Project, node: Node) -> Words | None:
    """Why a node's content is restricted. A registered entity is withheld only for lack of consent."""
    if node[0] in project.steps:
        return bars_of(evaluate(project).of(*node)) or _inside(project, node)
    if node[0] not in ENTITY_LEVELS:
        return None
    with project.catalog.read() as connection:
        why = missing_consents(connection, today(), project.settings.uses.required, [node]).get(node)
        return why and why.sentence


def why_hidden(project: Project, makings: Iterable[Making], lineage: Lineage, others: Iterable[Node]) -> Words | None:
    """Why these makings, or registered `others`, are restricted: somebody bars their nodes, or is inside without
    consent. What counts is that making, and not today's node."""
    listed = list(makings)
    for node in dict.fromkeys([*others, *(one.node for one in listed)]):
        is_step = node[0] in project.steps
        words = bars_of(evaluate(project).of(*node)) if is_step else why_withheld(project, node)
        if words is not None:
            return words
    with project.catalog.read() as connection:
        gate = Gate.of(project, connection)
        then = gate.past_contributors(lineage)
        by_step: dict[str, list[Making]] = {}
        for one in listed if gate.bars_somebody else ():
            by_step.setdefault(one.asset, []).append(one)
        for step, some in by_step.items():
            nonconsenting = then.nonconsenting_makings(step)
            for one in some:
                if one.id in nonconsenting:
                    many = then.patients(one)
                    return _is_inside(project, one, many, is_lost=not many and lineage.is_of_lost(one.id))
    return None


def why_log_hidden(project: Project, making: Making, lineage: Lineage) -> Words | None:
    """Why a call's output is restricted: here, people barred for quality count too."""
    words = why_hidden(project, [making], lineage, ())
    if words or readable_makings(project, [making], lineage):
        return words
    return _is_inside(project, making, 0, is_lost=lineage.is_of_lost(making.id))


def is_of_todays_call(project: Project, node: Node, log: Path) -> bool:
    """Whether a log is of a call that failed and has today's key: then only those are inside who may be used today,
    whoever is inside the current result."""
    if node[0] not in project.steps or evaluate(project).of(*node).state != "failed":
        return False
    mine = (attempt.c.asset == node[0]) & (attempt.c.partition == node[1])
    with project.catalog.read() as connection:
        last = connection.execute(select(attempt.c.log).where(mine).order_by(attempt.c.id.desc()).limit(1)).scalar()
    return last is not None and project.absolute(last) == log


def why_log_withheld(project: Project, node: Node, log: Path) -> Words | None:
    """Why the output of an earlier or failed cohort call is restricted: it ran before a consent ended, and nobody
    knows who was inside."""
    step = project.steps[node[0]]
    if step.level != "cohort" or log.is_relative_to(project.store.root):
        return None
    mine = (artifact.c.asset == node[0]) & (artifact.c.partition == node[1])
    with project.catalog.read() as connection:
        key = connection.execute(select(artifact.c.key).where(mine)).scalar() or ""
        until = consent_end_time(connection, today(), project.settings.uses.of(step.name))
    is_current = bool(key) and log.name.startswith(key[:16])
    if is_current or utc(log.stat().st_mtime) >= until:
        return None
    return Words("it printed this before a consent ended, and who was inside is unknown")


def readable_makings(project: Project, makings: Iterable[Making], lineage: Lineage) -> set[int]:
    """Which of these makings may be read: nobody inside is barred from that use today."""
    listed = list(makings)
    with project.catalog.read() as connection:
        gate = Gate.of(project, connection)
        if not gate.bars_somebody:
            return {one.id for one in listed}
        then = gate.past_contributors(lineage)
        nonconsenting = {
            step: then.nonconsenting_makings(step) for step in {one.asset for one in listed} if then.is_limited(step)
        }
    return {one.id for one in listed if one.id not in then.dirty and one.id not in nonconsenting.get(one.asset, ())}


def mask_for_makings(project: Project, makings: Iterable[Making]) -> Mask:
    """The mask for a comparison of these makings: it hides everybody whose consent does not allow their steps."""
    seen = mask_of(project)
    ids = {level: set(seen.ids.get(level, ())) for level in ENTITY_LEVELS}
    with project.catalog.read() as connection:
        gate = Gate.of(project, connection)
        then = gate.past_contributors(Lineage())
        for step in {one.asset for one in makings} if gate.bars_somebody else ():
            for level in ENTITY_LEVELS:
                names = gate.snapshot.entities[level].ids
                ids[level] |= {names[at] for at in np.flatnonzero(~then.permits(step, level)).tolist()}
    return Mask(ids, seen.levels)


def results_of(project: Project, node: Node, excluded: bool, reason: str | None) -> list[dict[str, Any]]:
    """Recorded results of a registered entity (which may be seen), for the analyses that may use it; for all
    analyses on request."""
    from ctcore.intake.results import recorded_of  # with all that records, which looking does not need

    found = recorded_of(project, *node)
    if not found or why_withheld(project, node) is not None:  # then all of it was asked for, and that is on record
        return found
    with project.catalog.read() as connection:
        gate = Gate.of(project, connection)
        place = gate.snapshot.entities[node[0]].index[node[1]]
        readable = [one for one in found if gate.usable_for(one["analysis"], node[0])[place]]
    if len(readable) < len(found) and shows_excluded(
        project, excluded, reason, name_of(node), Words("its recorded results")
    ):
        return found
    return readable


def _inside(project: Project, node: Node) -> Words | None:
    """People inside the current result who may not be used today."""
    with project.catalog.read() as connection:
        gate = Gate.of(project, connection)
        if not gate.bars_somebody:
            return None
        place = gate.snapshot.locate(node[0], [node[1]])[0]
        made = gate.snapshot.made[node[0]].materialization
        if place < 0 or not made[place] or gate.is_clean(project.steps[node[0]])[place]:
            return None
        many = gate.nonconsenting_patients(node)
        is_lost = not many and gate.is_of_lost(node)
    return _inside_words(project, node, many, is_current=True, is_lost=is_lost)


def _is_inside(project: Project, one: Making, many: int, is_lost: bool) -> Words:
    return _inside_words(project, one.node, many, one.current and one.asset in project.steps, is_lost)


def _inside_words(project: Project, node: Node, many: int, is_current: bool, is_lost: bool) -> Words:
    """Of how many it is, and the way out, where there is one."""
    if is_lost:
        return Words(Plain(f"it{OF_LOST}" + "; `ct run` makes that again" * is_current))
    use = project.settings.uses.of(node[0])
    way = Words()
    if is_current:
        step = project.steps[node[0]]
        again = f"it is {step.way_to(node[1])}" if step.made_elsewhere else "`ct run` makes it without them"
        way = Words("; `ct why ", node_text(node), "` says who, ", Plain(again))
    who = Words(Plain(f"{count_text(many, 'patient')} in it")) if many else Words("somebody is in it")
    said = Plain(f" whose consent does not allow {use or 'it'} today" if many else " who may not be used today")
    return Words(who, said, way)


def bars_of(verdict: Verdict) -> Words | None:
    """Who bars a node, and why; None if nobody does."""
    words = [one.words for one in verdict.reasons if one.kind == "excluded"] if verdict.state == "excluded" else []
    return join_words(words) if words else None


def refuse_excluded(project: Project, nodes: list[Node]) -> None:
    """Usage error, with the words, where one of these nodes is asked for and may not be made."""
    asked_for: dict[str, list[str]] = {}
    for asset, partition in nodes:
        if asset in project.steps:
            asked_for.setdefault(asset, []).append(partition)
    verdicts = evaluate(project) if asked_for else None
    listed = [one for asset, some in asked_for.items() for one in (verdicts.listed(asset, some) if verdicts else ())]
    problems = [(name_of(one.node), words) for one in listed if (words := bars_of(one))]
    if problems:
        seen = mask_for(project, " ".join(name for name, _ in problems))
        raise Usage("; ".join(f"{name} is excluded: {seen.mask_words(words)}" for name, words in problems))
