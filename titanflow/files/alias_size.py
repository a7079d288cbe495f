"""Refuses YAML whose aliases stand for far more than is written: to read it would take hours ("billion laughs")."""

from __future__ import annotations

from typing import Any

import yaml

MOST = 100_000
"""The values that a document may have with its aliases written out, if that is ten times what it has without."""


class BoundedAliases:
    """For a loader of PyYAML: refuses such a document before anything is made of it."""

    def get_single_node(self) -> Any:
        """The document's top.

        Raises:
            yaml.composer.ComposerError: see :func:`check_aliases`.
        """
        top = super().get_single_node()  # type: ignore[misc]
        check_aliases(top)
        return top


def check_aliases(top: yaml.Node | None) -> None:
    """Counts the values of a document, each alias as all that it stands for.

    Raises:
        yaml.composer.ComposerError: there are too many; its mark is the value at which they become too many.
    """
    sizes: dict[int, int] = {}
    if top is None or _size(top, sizes) <= (most := max(MOST, 10 * len(sizes))):
        return
    node = top
    # Only to smaller ones: a node may stand within itself.
    while larger := next((one for one in _below(node) if most < sizes[id(one)] < sizes[id(node)]), None):
        node = larger
    raise yaml.composer.ComposerError(None, None, f"its aliases stand for more than {most:,} values", node.start_mark)


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """The values in a node, itself among them. One that stands within itself is refused elsewhere, and counts once."""
    if id(node) not in sizes:
        sizes[id(node)] = 1
        sizes[id(node)] += sum(_size(one, sizes) for one in _below(node))
    return sizes[id(node)]


def _below(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [one for pair in node.value for one in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
