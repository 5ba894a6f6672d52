"""⑦ Sentences about one node: what `ct why` and `ct show` say."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from ctcore.catalog.tables import artifact, attempt, entity, file, materialization, output, recipe, reference
from ctcore.errors import StoreError, Usage
from ctcore.excluded import why_not_used
from ctcore.members import came_and_went
from ctcore.memo import current_edges, prepare
from ctcore.nodes import no_such
from ctcore.project import Project
from ctcore.reasons import Node, Reason, Verdict, name_of, short
from ctcore.staleness import Verdicts, evaluate
from ctcore.standing import today
from ctcore.steps import REGISTRY
from ctcore.story import NOTHING, stories_of
from ctcore.tombstones import is_purged, of_makings
from ctcore.trace import outputs_of
from ctcore.undeclared import seen_of, sentences
from ctcore.veil import UNVEILED, Veil, veil
from ctcore.waivers import built_from, holding

SHOWN = 20  # members of which it is said why they came or went


@dataclass(frozen=True)
class Explained:
    """A node's verdict as one sentence, with the evidence as data.

    `accepted` are its reasons that somebody waived, `built_from` the same of what it was built from; `roots` the root
    causes of what is only about to change, each with the path to it; `members` why each came or went; `unseen` what of
    its step's code cannot be followed; `again` that it came out with other bytes when it was made again; `undeclared`
    what was read for it and is not declared.
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

    @property
    def text(self) -> str:
        """All that people read."""
        accepted = [f"accepted: {one}" for one in self.accepted if self.verdict.state != "fresh"]
        members = [*self.members[:SHOWN], *([f"… and {len(self.members) - SHOWN} more"] * (len(self.members) > SHOWN))]
        unseen = [f"not seen: {one}" for one in self.unseen]
        beside = [*self.built_from, *members, *self.roots, *self.undeclared, *unseen]
        return "\n".join([self.sentence, *accepted, *self.again, *beside])


def why(project: Project, node: Node, seen: Veil = UNVEILED) -> Explained:
    """Why a node is what it is: one sentence, and the evidence. It is about people, and names them, unless it is told
    through a veil."""
    if node[0] in REGISTRY:
        return _registry(project, node, seen)
    step = project.steps[node[0]]
    verdicts = evaluate(project)
    if not verdicts.has(*node):
        raise no_such(project, step.level, node[1])
    verdict = verdicts.of(*node)
    told = seen.verdict(verdict)
    made, failure = _made(project, node), _failure(project, node)
    marks = verdicts.marked()
    with project.catalog.read() as connection:
        accepted = holding(connection, [verdict]).get(node, [])
        built = [seen.told(one) for one in built_from(connection, step.name, [node[1]], marks).get(node[1], [])]
        story = stories_of(connection, [made["id"]])[made["id"]] if made else NOTHING
    again = [story.again[-1].words] if story.reproduced == "other" and verdict.state != "excluded" else []
    waived = [seen.told(one.sentence) for one in accepted]
    sentence = _sentence(project, told, made, failure, waived)
    roots, members = [*_roots(told, verdicts, seen)], list(map(seen.told, came_and_went(project, verdict)))
    unseen = [str(one) for one in project.codes[step.name].unfollowed]
    beyond = sentences(project, step.name, (made or {}).get("undeclared") or ())
    return Explained(told, sentence, made, failure, waived, built, roots, members, unseen, again, beyond)


def _not_seen(project: Project, node: Node) -> list[str]:
    """Raw files of a node whose bytes cannot be looked at now: a verdict goes by what was last known of them."""
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


def _roots(verdict: Verdict, verdicts: Verdicts, seen: Veil) -> Iterator[str]:
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
        content = f"(content {short(made['data_version'])})"
        begun = f"{name} is fresh: made {made['started_at']} ({made['reason']})"
        if accepted:
            return f"{begun}; {'; '.join(accepted)}; nothing else differs {content}"
        inputs = len(current_edges(project, verdict.node))
        blind = _not_seen(project, verdict.node)
        said = f", as far as can be seen: of its raw files, {'; '.join(blind)}" if blind else ""
        return (
            f"{begun}, and its code, parameters, environment and {inputs} input{'s' * (inputs != 1)} "
            f"are still the ones it was made from {content}{said}"
        )
    if verdict.state == "failed" and failure is not None:
        said = ": ".join(line.strip() for line in failure["error"].splitlines()[:2])
        return f"{name} is failed: {said} (log: {failure['log']}); {verdict.why}"
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
        seen = veil(project)
        return {
            **row,
            "reason": seen.text(row["reason"]),
            "undeclared": seen_of(node, row["undeclared"], seen),
            "facts": json.loads(row["facts"]),
            **stories_of(connection, [row["id"]])[row["id"]].data,
            "path": str(project.store.root / row["folder"]),
            "files": [dict(one) for one in files],
        }


def made_with(project: Project, node: Node) -> str | None:
    """The digest of the code that the current artifact of a node was made with; None where there is none."""
    with project.catalog.read() as connection:
        return connection.execute(
            select(recipe.c.code)
            .join(artifact, artifact.c.recipe == recipe.c.id)
            .where(artifact.c.asset == node[0], artifact.c.partition == node[1])
        ).scalar()


def purged_makings(project: Project, node: Node) -> list[dict[str, Any]]:
    """What tombstones say of a node: each making that was purged, with the files that it had."""
    with project.catalog.read() as connection:
        mine = (materialization.c.asset == node[0]) & (materialization.c.partition == node[1])
        rows = connection.execute(
            select(materialization.c.id, materialization.c.data_version, materialization.c.started_at)
            .where(mine, is_purged())
            .order_by(materialization.c.id)
        ).all()
        words = of_makings(connection, [row.id for row in rows])
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
    """What metadata columns were and are, of the reasons for which they differ. Personal data: for eyes only."""
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


def artifact_path(project: Project, node: Node, output: str | None = None) -> Path:
    """The folder of a node's current artifact, or one of its files by the output's or the file's name."""
    name = name_of(node)
    if node[0] in REGISTRY:
        raise Usage(f"{name} has no artifact; `ct show {name}` names its files")
    made = _made(project, node)
    if made is None:
        gone = purged_makings(project, node)
        said = gone[-1]["purged"] if gone else "never made"
        raise StoreError(f"{name} was {said}; `ct run {name}` makes it")
    folder = Path(made["path"])
    named: dict[str, str] = project.store.sidecar(folder)["outputs"] if folder.is_dir() and output else {}
    file = named.get(output or "", output)
    if named and file not in named.values():
        listed = ", ".join(f"{key} ({path})" for key, path in named.items())
        raise Usage(f"{name} has no output {output!r}; it has: {listed}")
    found = folder / file if file else folder
    if not found.exists():
        raise StoreError(f"{found} is gone; `ct run {name}` makes it again")
    return found


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


def _registry(project: Project, node: Node, seen: Veil) -> Explained:
    """A patient, specimen, assay or reference: what is declared of it."""
    made = entry(project, node)
    barred = () if node[0] == "reference" else tuple(map(seen.reason, _barred(project, node)))
    if barred:
        said = "; ".join(str(one.words) for one in barred)
        return Explained(Verdict(*node, "excluded", barred), f"{name_of(node)} is excluded: {said}", None, None)
    problems = [one["problem"] for one in made.get("files", ()) if one.get("problem")]
    verdict = Verdict(*node, "lost" if problems else "fresh")
    said = f"is lost: {'; '.join(problems)}" if problems else "is as the sheet and the disk say"
    return Explained(verdict, f"{name_of(node)} {said}", made, None)


def _barred(project: Project, node: Node) -> tuple[Reason, ...]:
    """Who bars somebody registered: their own events and consent, and those of their ancestors."""
    with project.catalog.read() as connection:
        mirror, inputs = today(project, connection)
        place = mirror.entities[node[0]].index[node[1]]
        return why_not_used(connection, inputs, None, node[0], place)


def entry(project: Project, node: Node) -> dict[str, Any]:
    """A registry node's declared attributes and files."""
    with project.catalog.read() as connection:
        if node[0] == "reference":
            found = connection.execute(select(reference).where(reference.c.key == node[1])).mappings().first()
            if found is None:
                raise no_such(project, "reference", node[1])
            return dict(found)
        row = connection.execute(select(entity).where(entity.c.level == node[0], entity.c.id == node[1])).first()
        if row is None:
            raise no_such(project, node[0], node[1])
        parent = connection.execute(select(entity.c.id).where(entity.c.seq == row.parent)).scalar()
        files = connection.execute(select(file).where(file.c.entity == row.seq)).mappings()
        return {
            "level": row.level,
            "id": row.id,
            "parent": parent,
            "attributes": json.loads(row.attributes),
            "files": [{k: v for k, v in one.items() if k != "entity"} for one in files],
        }
