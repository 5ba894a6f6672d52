"""The ancestors and descendants of nodes, by today's inputs."""

from collections.abc import Callable, Mapping

import numpy as np

from ctcore.inputs.current import current_inputs
from ctcore.inputs.resolve import Inputs
from ctcore.model.node import Keys
from ctcore.project import Project
from ctcore.snapshot.versions import Places


def with_ancestors(project: Project, keys: Keys) -> dict[str, set[str]]:
    """These nodes and every node that they are made from today."""
    return _reach(project, keys, Inputs.with_ancestors)


def with_descendants(project: Project, keys: Keys) -> dict[str, set[str]]:
    """These nodes and every node that is made from them today."""
    return _reach(project, keys, Inputs.with_descendants)


def _reach(
    project: Project, keys: Keys, way: Callable[[Inputs, Mapping[str, Places]], dict[str, Places]]
) -> dict[str, set[str]]:
    with project.catalog.read() as connection:
        snapshot, inputs = current_inputs(project, connection)
    places = {name: np.array(snapshot.locate(name, sorted(some)), np.int64) for name, some in keys.items()}
    found = way(inputs, {name: some[some >= 0] for name, some in places.items()})
    return {name: {snapshot.name(name, at) for at in some.tolist()} for name, some in found.items()}
