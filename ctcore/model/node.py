"""A node of the graph: a step or a level, and a partition of it."""

from collections.abc import Mapping

Node = tuple[str, str]

Content = tuple[str, str, str]
"""Asset, partition, data version: what a node was made to be."""


def name_of(node: Node) -> str:
    """`aligned_reads/HG00100-3815246`: how a node is written everywhere."""
    return f"{node[0]}/{node[1]}"


Keys = Mapping[str, set[str]]
