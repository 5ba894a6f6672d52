"""⑧ A plan as a file: what was approved, node for node, so that exactly that is run later, or nothing.

A node is still in its plan if it would be made by the same recipe, for the same reasons, from the same things; what
the plan itself makes may be other by then, because that is what it is for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctcore import jsontext
from ctcore.batches import partitions
from ctcore.clock import now
from ctcore.digest import digest_value
from ctcore.errors import ProjectError, Usage
from ctcore.memo import prepare
from ctcore.plan import Group, Plan, grouped
from ctcore.project import Project
from ctcore.reasons import Node, Reason, Verdict
from ctcore.staleness import Verdicts, evaluate
from ctcore.veil import UNVEILED, veil
from ctcore.whole import write_json
from ctcore.words import Plain, Words, joined

FORMAT = "ct.plan.v1"
_MADE_BY_THE_PLAN = ("upstream", "input", "member-added", "member-removed")


@dataclass(frozen=True)
class Saved:
    """What a file holds: step → partition → what the node was to be made for, and the key of its call where it was
    known already; and each step's recipe."""

    made_at: str
    selection: tuple[str, ...]
    recipes: Mapping[str, str]
    nodes: Mapping[str, Mapping[str, tuple[str, str | None]]]


@dataclass(frozen=True)
class Compared:
    """A saved plan beside today: `holds` is what is still in it; `done` nodes are made by now, or are being made."""

    holds: Mapping[str, set[str]]
    done: int
    differs: tuple[Group, ...]


def as_json(plan: Plan) -> dict[str, Any]:
    """For programs: the same numbers and words as in the table."""
    return {
        "selection": list(plan.selection),
        "nodes": {"at_most": plan.nodes, "expected": round(plan.expected, 1), "reused": plan.reused},
        "steps": len(plan.running_steps),
        "leaves": plan.leaves,
        "core_hours": {"at_most": plan.core_hours(), "expected": plan.core_hours(expected=True)},
        "elapsed_s": {"at_most": plan.elapsed_s(), "expected": plan.elapsed_s(expected=True)},
        "without_history": plan.without_history,
        "place": plan.place,
        "at_once": plan.at_once,
        "in_order": [
            {
                "step": one.step,
                "level": one.level,
                "leaf": one.leaf,
                "policy": one.policy,
                "at_most": len(one.run),
                "expected": round(one.expected, 1),
                "reused": len(one.reuse),
                "running": one.running,
                "failed_before": one.failed,
                "core_hours": one.core_hours(len(one.run)),
                "elapsed_s": one.elapsed_s(len(one.run), plan.at_once),
                "history": {**vars(one.cost), **vars(one.changes)},
                "why": [vars(group) for group in one.why],
                "not_run": [vars(group) for group in one.excluded],
            }
            for one in plan.steps
        ],
    }


def save(project: Project, plan: Plan, path: Path) -> None:
    """Write a plan so that `ct run --plan` can run exactly it."""
    planned = {(one.step, verdict.partition) for one in plan.steps for verdict in (*one.run, *one.reuse)}
    steps = {
        one.step: {
            "recipe": project.recipes[one.step].digest,
            "nodes": {v.partition: [_reasons(v, planned), one.keys.get(v.partition)] for v in (*one.run, *one.reuse)},
        }
        for one in plan.steps
        if one.run or one.reuse
    }
    try:
        write_json(
            path.absolute(),
            {
                "format": FORMAT,
                "project": project.id,
                "made_at": now(),
                **as_json(plan),
                "planned": steps,
            },
        )
    except OSError as error:
        raise Usage(f"{path} cannot be written: {error.strerror}; name another file") from error


def load(project: Project, path: Path) -> Saved:
    """Read a saved plan. Usage error where it is none, or another project's."""
    try:
        read = jsontext.loads(path.read_bytes())
        if read["format"] != FORMAT:
            raise ValueError(read["format"])
        saved = Saved(
            str(read["made_at"]),
            tuple(read["selection"]),
            {step: str(one["recipe"]) for step, one in read["planned"].items()},
            {
                step: {k: (said, key) for k, (said, key) in one["nodes"].items()}
                for step, one in read["planned"].items()
            },
        )
    except OSError as error:
        raise Usage(f"{path} cannot be read: {error.strerror}; `ct plan --save {path}` writes one") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Usage(f"{path} is no saved plan of this ct; `ct plan --save {path}` writes one") from error
    if read["project"] != project.id:
        raise Usage(f"{path} is a plan of project {read['project']!r}, and this one is {project.id!r}")
    return saved


def compare(project: Project, saved: Saved) -> Compared:
    """What of a plan is done, what still holds, and what would be something else today."""
    planned = {(step, key) for step, nodes in saved.nodes.items() for key in nodes}
    there = {step: set(nodes) for step, nodes in saved.nodes.items() if step in project.steps}
    verdicts = evaluate(project)
    holds: dict[str, set[str]] = {}
    differs: list[Verdict] = []
    seen = veil(project)
    done = 0
    for step, nodes in saved.nodes.items():
        today = _Today(project, saved, step, verdicts, planned) if step in there else None
        for key in nodes:
            verdict = verdicts.of(step, key)
            words = today.difference(verdict) if today else Words(Plain(f"there is no step {step} any more"))
            if words is not None:
                reason = Reason("upstream", words, path=((step, key),))
                differs.append(seen.verdict(Verdict(step, key, "stale", (reason,))))
            elif verdict.state in ("fresh", "running"):
                done += 1
            else:
                holds.setdefault(step, set()).add(key)
    return Compared(holds, done, tuple(grouped(differs)))


class _Today:
    """One step as it is now, beside what was planned of it."""

    def __init__(self, project: Project, saved: Saved, step: str, verdicts: Verdicts, planned: set[Node]) -> None:
        self.nodes, self.planned = saved.nodes[step], planned
        self.same_recipe = project.recipes[step].digest == saved.recipes[step]
        self.known = set(partitions(project, project.steps[step].level))
        called = [key for key, (_, call) in self.nodes.items() if call]
        asked = [verdict.partition for verdict in verdicts.listed(step, called)]
        ready = prepare(project, project.steps[step], asked).ready if asked else {}
        self.keys = {key: call.key for key, call in ready.items()}

    def difference(self, verdict: Verdict) -> Words | None:
        """What is not as planned; None where the node would be made as planned, or is made already."""
        if verdict.partition not in self.known or verdict.state == "excluded":
            return Words("is not made any more: ", verdict.sentence or "it is not in the cohort")
        if verdict.state in ("fresh", "running"):
            return None
        if not self.same_recipe:
            return Words("its code, parameters or environment are others than planned")
        said, call = self.nodes[verdict.partition]
        if _reasons(verdict, self.planned) != said:
            others = joined(reason.sentence for reason in _stays(verdict, self.planned))
            return Words("would be made for other reasons: ", others or verdict.sentence)
        if call is not None and self.keys.get(verdict.partition, call) != call:
            return Words("would be made from other inputs")
        return None


def refuse(path: Path, compared: Compared) -> ProjectError:
    """The error that says what is different from the plan, and the two ways out."""
    many = sum(group.nodes for group in compared.differs)
    lines = "\n".join(f"  {group.example}{_more(group)}: {group.words}" for group in compared.differs)
    holding = sum(map(len, compared.holds.values()))
    return ProjectError(
        f"{path}: {many} planned nodes are not as planned; nothing was run\n{lines}\n"
        f"`ct plan --save {path}` plans anew; `ct run --plan {path} --partial` runs the {holding} that are as planned"
    )


def _more(group: Group) -> str:
    return f" and {group.nodes - 1} more" if group.nodes > 1 else ""


def _stays(verdict: Verdict, planned: set[Node]) -> list[Reason]:
    """The reasons that have nothing to do with what the plan makes itself."""
    return [one for one in verdict.reasons if not (one.kind in _MADE_BY_THE_PLAN and one.node in planned)]


def _reasons(verdict: Verdict, planned: set[Node]) -> str:
    """A digest of the reasons; of all that they say, also of people."""
    said = sorted(UNVEILED.told(reason.sentence) for reason in _stays(verdict, planned))
    return digest_value("ct.planned.v1", said)[:16]
