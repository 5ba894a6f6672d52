"""`ct run --again`: nodes that are there, made once more beside themselves, and compared; replaced where asked."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ctcore.errors import Usage
from ctcore.model.node import name_of
from ctcore.terminal.render import FOUND, say
from ctcore.util import progress

if TYPE_CHECKING:
    from ctcore.execution.materialize import Outcome
    from ctcore.project import Project

SHOWN = 10


def make_again(project: "Project", texts: Sequence[str], replaces: bool = False) -> int:
    """The exit code: 0 where all have the same bytes, 3 where some have others, 1 where some could not be made."""
    from ctcore.execution.materialize import StepRun
    from ctcore.execution.runners import chosen_profile, runner_of

    chosen_profile(project)
    nodes = _with_a_making(project, texts)
    counts: Counter[str] = Counter()
    with progress.reading(lambda text: click.echo(text, err=True)):
        for name, keys in nodes.items():
            step, runner = project.steps[name], runner_of(project)
            making = StepRun(project, step, keys, again=True, replaces=replaces, runner=runner)
            for one in making.outcomes():
                counts[_say(one)] += 1
    parts = [f"{counts[word]} {word}" for word in ("reproduced", "other", "not made") if counts[word]]
    kept = "nothing was replaced"
    if replaces and counts["other"]:
        kept = "results with other bytes were replaced; `ct stale` lists everything made from them"
    click.echo(f"made again: {', '.join(parts)}; {kept}", err=True)
    return 1 if counts["not made"] else FOUND if counts["other"] else 0


def _say(one: "Outcome") -> str:
    name = name_of(one.node)
    if one.same is None:
        say(f"{name}\t{one.state}: {one.why}")
        return "not made"
    say(f"{name}\t{'same' if one.same else 'other'}\t{one.why}")
    return "reproduced" if one.same else "other"


def _with_a_making(project: "Project", texts: Sequence[str]) -> dict[str, list[str]]:
    """These nodes by step; Usage error where what is there is not what would be made today."""
    from ctcore.cohorts.filters import refuse_all_excluded
    from ctcore.cohorts.partitions import partitions
    from ctcore.cohorts.selection import select_nodes
    from ctcore.governance.masking import mask_of
    from ctcore.inputs.key import cache_hits, prepare
    from ctcore.staleness.verdicts import evaluate

    wanted = select_nodes(project, texts)
    if not wanted:
        raise Usage("--again needs the nodes that are to be made again: ct run --again STEP/PARTITION")
    refuse_all_excluded(project, wanted)
    verdicts = evaluate(project)
    found: dict[str, list[str]] = {}
    problems: list[str] = []
    for name, some in wanted.items():
        step = project.steps[name]
        if step.made_elsewhere:
            problems.append(f"{name} cannot be made again here, as it is {step.way_to('PARTITION')} takes another")
            continue
        out = {
            one.partition for one in verdicts.listed(name, some) if one.state == "excluded"
        }  # named ones are refused
        keys = [key for key in partitions(project, step.level) if key in some and key not in out]
        preparation = prepare(project, step, keys)
        made = cache_hits(project, preparation.ready.values())
        problems += map(mask_of(project).mask_words, preparation.blocked.values())
        missing = [key for key, call in preparation.ready.items() if call.key not in made]
        problems += [f"{name}/{key} has no making of today's call; `ct run {name}/{key}` makes it" for key in missing]
        found[name] = keys
    if problems:
        more = f"\n  … and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise Usage("nothing was made again:\n  " + "\n  ".join(problems[:SHOWN]) + more)
    return found
