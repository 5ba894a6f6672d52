"""Sentences about one node, for `ct why` and `ct show`."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select

from ctcore.catalog.tables import artifact, attempt, entity, file, materialization, output, recipe, reference
from ctcore.catalog.tombstones import is_purged, purge_words_by_making
from ctcore.errors import StoreError, Usage
from ctcore.governance.hints import not_found
from ctcore.governance.masking import UNMASKED, Mask, mask_of
from ctcore.inputs.current import current_inputs
from ctcore.inputs.exclusions import why_not_used
from ctcore.inputs.key import current_edges, prepare
from ctcore.lineage.attribution import NOTHING, attributions_of
from ctcore.lineage.trace import outputs_of
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.masked_text import Plain, QuotedText, Words
from ctcore.model.node import Node, name_of
from ctcore.model.reasons import Reason, Verdict, members_text, node_text, short_digest
from ctcore.project import Project
from ctcore.staleness.direct_reasons import differing_members_of
from ctcore.staleness.membership_changes import membership_sentences
from ctcore.staleness.undeclared_reads import masked_reads, sentences
from ctcore.staleness.verdicts import Verdicts, evaluate
from ctcore.staleness.waivers import accepted_sources, waivers_of
from ctcore.steps.graph import REGISTRY

SHOWN = 20  # members of which it is said why they came or went


@dataclass(frozen=True)
class Explanation:
    """A node's verdict as one sentence, with the evidence as data.

    `accepted`: its waived reasons; `built_from`: waived reasons of its inputs; `roots`: the root causes of a waiting
    node, each with the path to it; `members`: why each came or went; `unseen`: code of its step that cannot be
    followed; `again`: that a repetition gave other bytes; `undeclared`: reads that the step does not declare; `inside`:
    which files of a raw folder differ.
    """

    verdict: Verdict
    sentence: str
    made: dict[str, Any] | None
    failure: dict[str, Any] | None
    accepted: Sequence[str] = ()
    built_from: Sequence[str] = ()
    roots: Sequence[str] = ()
    members: Sequence[str] = ()
    unseen: Sequence[str] = ()
    again: Sequence[str] = ()
    undeclared: Sequence[str] = ()
    inside: Sequence[str] = ()

    @property
    def text(self) -> str:
        """The whole text for people."""
        accepted = [f"accepted: {one}" for one in self.accepted if self.verdict.state != "fresh"]
        members = [*self.members[:SHOWN], *([f"… and {len(self.members) - SHOWN} more"] * (len(self.members) > SHOWN))]
        unseen = [f"not seen: {one}" for one in self.unseen]
        beside = [*self.inside, *self.built_from, *members, *self.roots, *self.undeclared, *unseen]
        return "\n".join([self.sentence, *accepted, *self.again, *beside])


def why(project: Project, node: Node, seen: Mask = UNMASKED) -> Explanation:
    """Explain a node's state in one sentence, with evidence. The text names people unless a mask hides them."""
    if node[0] in REGISTRY:
        return _registry(project, node, seen)
    step = project.steps[node[0]]
    verdicts = evaluate(project)
    if not verdicts.has(*node):
        raise not_found(project, step.level, node[1])
    verdict = verdicts.of(*node)
    told = seen.verdict(verdict)
    made, failure = _made(project, node), _failure(project, node)
    marks = verdicts.with_acceptances()
    with project.catalog.read() as connection:
        accepted = waivers_of(connection, [verdict]).get(node, [])
        built = [
            seen.mask_words(one) for one in accepted_sources(connection, step.name, [node[1]], marks).get(node[1], [])
        ]
        story = attributions_of(connection, [made["id"]])[made["id"]] if made else NOTHING
    again = [story.again[-1].words] if story.reproduced == "other" and verdict.state != "excluded" else []
    waived = [seen.mask_words(one.sentence) for one in accepted]
    sentence = _sentence(project, told, made, failure, waived)
    roots, members = [*_roots(told, verdicts, seen)], list(map(seen.mask_words, membership_sentences(project, verdict)))
    unseen = [str(one) for one in project.codes[step.name].unfollowed]
    beyond = sentences(project, step.name, (made or {}).get("undeclared") or ())
    inside = [said for one in _inside_folders(project, verdict) if (said := seen.mask_words(one))]
    return Explanation(told, sentence, made, failure, waived, built, roots, members, unseen, again, beyond, inside)


def _inside_folders(project: Project, verdict: Verdict) -> Iterator[Words]:
    """Which files of a raw folder differ. They are no part of the reason, which is kept: names of files inside may name
    people, and a purge leaves none."""
    for reason in verdict.reasons:
        if reason.kind == "input" and reason.node is not None and reason.node[0] in ENTITY_LEVELS:
            names = differing_members_of(project, reason.old, reason.new)
            if names:
                yield Words(Plain(f"in {reason.input} of "), node_text(reason.node), QuotedText(members_text(names)))


def _not_seen(project: Project, node: Node) -> list[str]:
    """Raw files of a node that cannot be read now: the verdict uses their last known state."""
    level = project.steps[node[0]].level
    with project.catalog.read() as connection:
        rows = connection.execute(
            select(file.c.role, file.c.problem)
            .join(entity, entity.c.seq == file.c.entity)
            .where(entity.c.level == level, entity.c.id == node[1], file.c.problem.is_not(None))
            .where(file.c.role.in_(project.steps[node[0]].files))
            .order_by(file.c.role)
        )
        return [f"{role} cannot be ({said.rpartition(': ')[2]})" for role, said in rows]


def _roots(verdict: Verdict, verdicts: Verdicts, seen: Mask) -> Iterator[str]:
    for reason in verdict.reasons:
        if reason.kind == "upstream" and reason.node is not None:
            above = seen.verdict(verdicts.of(*reason.node)).reasons
            direct = "; ".join(str(one) for one in above if one.kind != "upstream")
            yield f"root cause: {name_of(reason.node)}: {direct}"
            yield f"path: {' ← '.join(map(name_of, [verdict.node, *reason.path]))}"


def _sentence(
    project: Project,
    verdict: Verdict,
    made: dict[str, Any] | None,
    failure: dict[str, Any] | None,
    accepted: Sequence[str],
) -> str:
    name = name_of(verdict.node)
    if verdict.state == "fresh" and made is not None:
        content = f"(content {short_digest(made['data_version'])})"
        begun = f"{name} is fresh: made {made['started_at']} ({made['reason']})"
        if accepted:
            return f"{begun}; {'; '.join(accepted)}; nothing else differs {content}"
        inputs = len(current_edges(project, verdict.node))
        blind = _not_seen(project, verdict.node)
        said = f", as far as can be seen: of its raw files, {'; '.join(blind)}" if blind else ""
        recipe = "code, parameters, environment"
        if project.steps[verdict.asset].made_elsewhere:
            recipe = "declaration, parameters"
        return (
            f"{begun}, and its {recipe} and {inputs} input{'s' * (inputs != 1)} "
            f"are still the ones it was made from {content}{said}"
        )
    if verdict.state == "failed" and failure is not None:
        said = ": ".join(line.strip() for line in failure["error"].splitlines()[:2])
        log = f" (log: {failure['log']})" if failure["log"] else ""
        return f"{name} is failed: {said}{log}; {verdict.why}"
    if verdict.state == "excluded":
        gone = [one["purged"] for one in purged_makings(project, verdict.node)[-1:]] if made is None else []
        return f"{name} is excluded: {'; '.join([*(str(one.words) for one in verdict.reasons), *gone])}"
    first, *others = verdict.reasons
    words = str(first.words) if first.kind == verdict.state else str(first)
    return f"{name} is {verdict.state}: {'; '.join([words, *map(str, others)])}"


def _made(project: Project, node: Node) -> dict[str, Any] | None:
    with project.catalog.read() as connection:
        row = (
            connection.execute(
                select(materialization)
                .join(artifact, artifact.c.materialization == materialization.c.id)
                .where(artifact.c.asset == node[0], artifact.c.partition == node[1])
            )
            .mappings()
            .first()
        )
        if row is None:
            return None
        files = connection.execute(
            select(output.c.file, output.c.size, output.c.digest)
            .where(output.c.materialization == row["id"])
            .order_by(output.c.file)
        ).mappings()
        seen = mask_of(project)
        return {
            **row,
            "reason": seen.text(row["reason"]),
            "undeclared": masked_reads(node, row["undeclared"], seen),
            "facts": json.loads(row["facts"]),
            **attributions_of(connection, [row["id"]])[row["id"]].data,
            "path": str(project.store.root / row["folder"]),
            "files": [dict(one) for one in files],
        }


def current_code_digest(project: Project, node: Node) -> str | None:
    """The digest of the code that the current artifact of a node was made with; None where there is none."""
    with project.catalog.read() as connection:
        return connection.execute(
            select(recipe.c.code)
            .join(artifact, artifact.c.recipe == recipe.c.id)
            .where(artifact.c.asset == node[0], artifact.c.partition == node[1])
        ).scalar()


def purged_makings(project: Project, node: Node) -> list[dict[str, Any]]:
    """Tombstones of a node: each purged making with its files."""
    with project.catalog.read() as connection:
        mine = (materialization.c.asset == node[0]) & (materialization.c.partition == node[1])
        rows = connection.execute(
            select(materialization.c.id, materialization.c.data_version, materialization.c.started_at)
            .where(mine, is_purged())
            .order_by(materialization.c.id)
        ).all()
        words = purge_words_by_making(connection, [row.id for row in rows])
        files = outputs_of(connection, words)
    return [
        {
            "materialization": row.id,
            "data_version": row.data_version,
            "started_at": row.started_at,
            "purged": words[row.id],
            "files": files.get(row.id, []),
        }
        for row in rows
    ]


def column_values(project: Project, verdict: Verdict) -> list[str]:
    """Old and new values of the metadata columns behind these reasons. Personal data: for terminals only."""
    differing = [(r.input or "", r.node) for r in verdict.reasons if r.kind == "metadata" and r.node]
    if not differing:
        return []
    used = {(one.input, (one.asset, one.partition)): one.version for one in current_edges(project, verdict.node)}
    now = prepare(project, project.steps[verdict.asset], [verdict.partition]).ready
    today = {(one.input, (one.asset, one.partition)): one.version for call in now.values() for one in call.edges}
    return [
        f"{name} of {node and node[1]}: {used.get((name, node))} → {today.get((name, node))}"
        for name, node in differing
    ]


class ArtifactPath(NamedTuple):
    """Where an artifact, or one of its files, was published; `lost`: what of it is not there, or None."""

    path: Path
    lost: Path | None


def artifact_path(project: Project, node: Node, output: str | None = None) -> ArtifactPath:
    """The folder of a node's current artifact, or one of its files by the output's or the file's name."""
    name = name_of(node)
    if node[0] in REGISTRY:
        raise Usage(f"{name} has no artifact; `ct show {name}` names its files")
    made = _made(project, node)
    if made is None:
        gone = purged_makings(project, node)
        said = gone[-1]["purged"] if gone else "never made"
        raise StoreError(f"{name} was {said}; {project.steps[node[0]].way_to(node[1])}")
    folder = Path(made["path"])
    named: dict[str, str] = project.store.sidecar(folder)["outputs"] if folder.is_dir() and output else {}
    file = named.get(output or "", output)
    if named and file not in named.values():
        listed = ", ".join(f"{key} ({path})" for key, path in named.items())
        raise Usage(f"{name} has no output {output!r}; it has: {listed}")
    places = [folder / file] if file else [folder, *(folder / one["file"] for one in made["files"])]
    return ArtifactPath(places[0], next((place for place in places if not place.exists()), None))


def _failure(project: Project, node: Node) -> dict[str, Any] | None:
    with project.catalog.read() as connection:
        row = (
            connection.execute(
                select(attempt)
                .where(attempt.c.asset == node[0], attempt.c.partition == node[1])
                .order_by(attempt.c.id.desc())
            )
            .mappings()
            .first()
        )
    return dict(row) if row is not None else None


def _registry(project: Project, node: Node, seen: Mask) -> Explanation:
    """The declared values of a patient, specimen, assay or reference."""
    made = entry(project, node)
    barred = () if node[0] == "reference" else tuple(map(seen.reason, _barred(project, node)))
    if barred:
        said = "; ".join(str(one.words) for one in barred)
        return Explanation(Verdict(*node, "excluded", barred), f"{name_of(node)} is excluded: {said}", None, None)
    problems = [one["problem"] for one in made.get("files", ()) if one.get("problem")]
    verdict = Verdict(*node, "lost" if problems else "fresh")
    said = f"is lost: {'; '.join(problems)}" if problems else "is as the sheet and the disk say"
    return Explanation(verdict, f"{name_of(node)} {said}", made, None)


def _barred(project: Project, node: Node) -> tuple[Reason, ...]:
    """Why a registered entity is excluded: its own events and consent, and its ancestors'."""
    with project.catalog.read() as connection:
        snapshot, inputs = current_inputs(project, connection)
        place = snapshot.entities[node[0]].index[node[1]]
        return why_not_used(connection, inputs, None, node[0], place)


def entry(project: Project, node: Node) -> dict[str, Any]:
    """A registry node's declared attributes and files."""
    with project.catalog.read() as connection:
        if node[0] == "reference":
            found = connection.execute(select(reference).where(reference.c.key == node[1])).mappings().first()
            if found is None:
                raise not_found(project, "reference", node[1])
            return dict(found)
        row = connection.execute(select(entity).where(entity.c.level == node[0], entity.c.id == node[1])).first()
        if row is None:
            raise not_found(project, node[0], node[1])
        parent = connection.execute(select(entity.c.id).where(entity.c.seq == row.parent)).scalar()
        files = connection.execute(select(file).where(file.c.entity == row.seq)).mappings()
        return {
            "level": row.level,
            "id": row.id,
            "parent": parent,
            "attributes": json.loads(row.attributes),
            "files": [{k: v for k, v in one.items() if k != "entity"} for one in files],
        }
