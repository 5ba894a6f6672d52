"""Walks along edges: distances, circles, and the making that an edge came from."""

from collections.abc import Sequence

from ctcore.inputs.key import Edge
from ctcore.lineage.walk import Lineage, Making, distances, find_cycle

GRAPH: dict[int, Sequence[int]] = {1: (2, 3), 2: (4,), 3: (4,), 4: ()}


def test_distances_are_the_smallest_nearest_first() -> None:
    deeper = {**GRAPH, 1: (4, 2, 3), 4: (5,), 5: ()}
    assert distances([1], deeper.__getitem__) == {1: 0, 4: 1, 2: 1, 3: 1, 5: 2}
    assert list(distances([1], GRAPH.__getitem__)) == [1, 2, 3, 4]


def test_a_circle_is_named_from_its_first_to_its_first() -> None:
    assert find_cycle([1], GRAPH.__getitem__) == []
    assert find_cycle([1], {**GRAPH, 4: (2,)}.__getitem__) == [2, 4, 2]
    assert find_cycle([4], {4: (4,)}.__getitem__) == [4, 4]
    assert find_cycle([0], {0: (), **GRAPH}.__getitem__) == []


def test_a_way_of_ten_thousand_is_walked() -> None:
    following = {n: (n + 1,) for n in range(10_000)} | {10_000: ()}
    assert find_cycle([0], following.__getitem__) == []
    assert distances([0], following.__getitem__)[10_000] == 10_000


def making(number: int, partition: str, version: str) -> Making:
    return Making(number, "merged", partition, "k", 1, version, "f", 0, "", None, "", 0.0, False)


def test_an_edge_leads_to_the_last_making_before_it() -> None:
    found = Lineage({n: making(n, "S1", version) for n, version in ((1, "a"), (3, "b"), (5, "a"), (9, "a"))})
    used = Edge("reads", "merged", "S1", "a")
    assert [found.source(consumer, used) for consumer in (2, 6, 10)] == [1, 5, 9]
    assert found.source(1, used) == 9  # an older record of it is lost: a later one has these bytes
    assert found.source(6, Edge("reads", "merged", "S1", "c")) is None
    found.edges[6] = [used, used, Edge("reads", "merged", "S1", "b")]
    assert list(found.sources(6)) == [5, 3] and found.reached([6]) == {6: 0, 5: 1, 3: 1}
