"""② What is excluded is shown only to somebody who asks for it by name and says why; and that is written down."""

from ctcore.clock import today
from ctcore.errors import Usage
from ctcore.policy import withheld
from ctcore.project import Project
from ctcore.reasons import Node, Verdict, name_of
from ctcore.staleness import evaluate
from ctcore.step import ENTITY_LEVELS


def disclose(project: Project, node: Node, excluded: bool, reason: str | None) -> None:
    """Pass where a node may be seen. Usage error, with the words, where it may not.

    With `excluded` it may, for a reason: the event `disclose` says who saw what, and why.
    """
    words = why_withheld(project, node)
    if words is None:
        return
    if not excluded:
        raise Usage(f"{name_of(node)} is excluded: {words}; --excluded --reason TEXT shows it, and that is recorded")
    record(project, name_of(node), words, reason)


def record(project: Project, what: str, words: str, reason: str | None) -> None:
    """Write down that somebody sees what is excluded. Usage error where they do not say why."""
    said = (reason or "").strip()
    if not said or not said.isprintable():
        raise Usage(f"{what} is excluded: {words}; say in one line why you have to see it: --reason TEXT")
    with project.catalog.write() as writer:
        writer.event("disclose", what, {"reason": said, "excluded": words})


def why_withheld(project: Project, node: Node) -> str | None:
    """Why a node's content is not for everybody. Of somebody registered, only want of consent withholds it."""
    if node[0] in project.steps:
        return bars_of(evaluate(project).of(*node))
    if node[0] not in ENTITY_LEVELS:
        return None
    with project.catalog.read() as connection:
        return withheld(connection, today(), [node]).get(node)


def bars_of(verdict: Verdict) -> str | None:
    """Who bars a node and by what; None where nobody does."""
    words = [one.words for one in verdict.reasons if one.kind == "excluded"] if verdict.state == "excluded" else []
    return "; ".join(words) or None


def refuse_excluded(project: Project, nodes: list[Node]) -> None:
    """Usage error, with the words, where one of these nodes is asked for and may not be made."""
    asked: dict[str, list[str]] = {}
    for asset, partition in nodes:
        if asset in project.steps:
            asked.setdefault(asset, []).append(partition)
    verdicts = evaluate(project) if asked else None
    listed = [one for asset, some in asked.items() for one in (verdicts.listed(asset, some) if verdicts else ())]
    problems = [f"{name_of(one.node)} is excluded: {words}" for one in listed if (words := bars_of(one))]
    if problems:
        raise Usage("; ".join(problems))
