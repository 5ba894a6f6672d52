"""② What is excluded is shown only to somebody who asks for it by name and says why; and that is written down."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select

from ctcore.catalog.tables import artifact
from ctcore.clock import today, utc
from ctcore.errors import Usage
from ctcore.leftout import counted
from ctcore.lineage import Making
from ctcore.policy import taken_back, withheld
from ctcore.project import Project
from ctcore.reading.gate import Gate
from ctcore.reasons import Node, Verdict, name_of, named
from ctcore.staleness import evaluate
from ctcore.step import ENTITY_LEVELS
from ctcore.veil import UNVEILED, WAY, Veil, veil
from ctcore.words import Plain, Words, joined

ANYBODY = Words("who may not be used")


def asked(project: Project, excluded: bool, reason: str | None, what: str, words: Words = ANYBODY) -> bool:
    """Whether the excluded are to be shown: by `--excluded`, with a reason, which is written down before all else.

    `what` is what was typed. `words` say who is excluded and why: an error tells them as far as they were asked for.
    """
    said = (reason or "").strip()
    if not excluded:
        if said:
            raise Usage("--reason goes with --excluded: it says why you have to see what is excluded")
        return False
    if not said or not said.isprintable():
        who = seen_by(project, what).told(words)
        raise Usage(f"{what}: {who}; say in one line why you have to see it: --reason TEXT")
    with project.catalog.write() as writer:
        writer.event("disclose", what, {"reason": said, "excluded": UNVEILED.told(words)})
    return True


def seen_by(project: Project, typed: str) -> Veil:
    """What is told to somebody who has typed this: who names somebody hidden, is told what is the matter with them."""
    seen = veil(project)
    return UNVEILED if seen.is_in(typed) else seen


def disclose(project: Project, node: Node, excluded: bool, reason: str | None) -> None:
    """Pass where a node may be seen. Usage error, with the words, where it may not.

    With `excluded` it may, for a reason: the event `disclose` says who saw what, and why.
    """
    allow(project, name_of(node), why_withheld(project, node), excluded, reason)


def allow(project: Project, what: str, words: Words | None, excluded: bool, reason: str | None) -> None:
    """Pass where nothing is excluded (no `words`), or where it is asked for; Usage error otherwise."""
    if words is None:
        return
    if not excluded:
        raise Usage(f"{what} is excluded: {seen_by(project, what).told(words)}; {WAY}")
    asked(project, excluded, reason, what, Words("is excluded: ", words))


def why_withheld(project: Project, node: Node) -> Words | None:
    """Why a node's content is not for everybody. Of somebody registered, only want of consent withholds it."""
    if node[0] in project.steps:
        return bars_of(evaluate(project).of(*node)) or _inside(project, node)
    if node[0] not in ENTITY_LEVELS:
        return None
    with project.catalog.read() as connection:
        why = withheld(connection, today(), project.settings.uses.required, [node]).get(node)
        return why and why.sentence


def why_hidden(project: Project, asked_for: Iterable[Node], inside: Iterable[Node]) -> Words | None:
    """Why the making of these nodes, with all that is `inside` them, is not for everybody."""
    nodes = list(asked_for)
    for node in nodes:
        words = why_withheld(project, node) if node[0] not in project.steps else _why_not_made(project, node)
        if words is not None:
            return words
    seen = veil(project)
    hidden = {node for node in inside if seen.hides(node)} if seen else set()
    return Words("somebody without consent is in it") if hidden else None


def why_log_withheld(project: Project, node: Node, log: Path) -> Words | None:
    """Why what a call for a cohort has printed, other than that of the current result, is not for everybody: before a
    consent ended, with whoever that is inside for all that anybody can tell."""
    step = project.steps[node[0]]
    if step.level != "cohort" or log.is_relative_to(project.store.root):
        return None
    mine = (artifact.c.asset == node[0]) & (artifact.c.partition == node[1])
    with project.catalog.read() as connection:
        key = connection.execute(select(artifact.c.key).where(mine)).scalar() or ""
        until = taken_back(connection, today(), project.settings.uses.of(step.name))
    is_current = bool(key) and log.name.startswith(key[:16])
    if is_current or utc(log.stat().st_mtime) >= until:
        return None
    return Words("it printed this before a consent ended, and nobody can tell who was inside")


def _why_not_made(project: Project, node: Node) -> Words | None:
    """Who bars a node; or who is inside its current result without consent."""
    words = bars_of(evaluate(project).of(*node))
    if words is not None:
        return words
    with project.catalog.read() as connection:
        gate = Gate.of(project, connection)
        many = gate.unwilling(node) if gate.bars_somebody else 0
    return _inside(project, node) if many else None


def opened(project: Project, makings: Sequence[Making]) -> set[int]:
    """Of which of these makings the folder may be given, where their nodes may be seen: an earlier one may have
    somebody inside who is in the current one no more."""
    with project.catalog.read() as connection:
        gate, steps = Gate.of(project, connection), project.steps
        dirty = {one.asset: gate.was_dirty(steps[one.asset]) for one in makings if one.asset in steps}
        if not gate.bars_somebody:
            return {one.id for one in makings}
    return {one.id for one in makings if one.current or (one.asset in dirty and one.partition not in dirty[one.asset])}


def results_of(project: Project, node: Node, excluded: bool, reason: str | None) -> list[dict[str, Any]]:
    """What is recorded of somebody registered (who may be seen), of the analyses for which they may be used; of all
    where it is asked for."""
    from ctcore.recording import recorded_of  # with all that records, which looking does not need

    found = recorded_of(project, *node)
    if not found or why_withheld(project, node) is not None:  # then all of it was asked for, and that is on record
        return found
    with project.catalog.read() as connection:
        gate = Gate.of(project, connection)
        place = gate.mirror.entities[node[0]].index[node[1]]
        readable = [one for one in found if gate.able(one["analysis"], node[0])[place]]
    if len(readable) < len(found) and asked(project, excluded, reason, name_of(node), Words("its recorded results")):
        return found
    return readable


def _inside(project: Project, node: Node) -> Words | None:
    """Somebody went into its current result who may not be used today."""
    with project.catalog.read() as connection:
        gate = Gate.of(project, connection)
        if not gate.bars_somebody:
            return None
        place = gate.mirror.locate(node[0], [node[1]])[0]
        made = gate.mirror.made[node[0]].materialization
        if place < 0 or not made[place] or gate.is_clean(project.steps[node[0]])[place]:
            return None
        many, use = gate.unwilling(node), project.settings.uses.of(node[0])
    way = Words("; `ct why ", named(node), "` says who, `ct run` makes it without them")
    who = Words(Plain(f"{counted(many, 'patient')} in it")) if many else Words("somebody is in it")
    said = Plain(f" whose consent does not allow {use or 'it'} today" if many else " who may not be used today")
    return Words(who, said, way)


def bars_of(verdict: Verdict) -> Words | None:
    """Who bars a node and by what; None where nobody does."""
    words = [one.words for one in verdict.reasons if one.kind == "excluded"] if verdict.state == "excluded" else []
    return joined(words) if words else None


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
        seen = seen_by(project, " ".join(name for name, _ in problems))
        raise Usage("; ".join(f"{name} is excluded: {seen.told(words)}" for name, words in problems))
