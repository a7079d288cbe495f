"""PyYAML's safe loader with YAML 1.2's numbers: ``1e-4`` is a number, ``0100`` is 100 and ``10:30`` a text.

YAML 1.1 reads these as a text, 64 and 630. A date such as ``2026-11-21`` stays the text that it is written as.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import yaml

from titanflow.files.alias_size import BoundedAliases

FAST_LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
"""PyYAML's safe loader by libyaml, in an eighth of the time and by YAML 1.1; Python's where libyaml is missing."""
FLOAT = re.compile(
    r"^[-+]?(?:\d[\d_]*\.[\d_]*|\.\d[\d_]*|\d[\d_]*(?=[eE]))(?:[eE][-+]?\d+)?$|^[-+]?\.(?:inf|nan)$", re.I
)
INTEGER = re.compile(r"^(?:[-+]?\d[\d_]*|0o[0-7]+|0x[0-9a-fA-F]+)$")
TAG = "tag:yaml.org,2002:"
_REPLACED = (f"{TAG}float", f"{TAG}int", f"{TAG}timestamp")


class Loader(BoundedAliases, yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's numbers, and without dates."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML reads a class attribute)
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As PyYAML's. A tag that doesn't fit its text (``!!bool x``) raises any error there, and has its line here."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            message = f"{str(node.value)[:40]!r} can't be read as {node.tag.removeprefix(TAG)}"
            raise yaml.constructor.ConstructorError(None, None, message, node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As PyYAML's, which lays merged keys into the node itself: whoever reads it again finds them twice."""
        # A tag such as !!map makes it ask this of any node.
        merges = isinstance(node, yaml.MappingNode) and any(key.value == "<<" for key, _ in node.value)
        return super().construct_mapping(copy.deepcopy(node) if merges else node, deep)

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        """Reads ``0o17``, ``0x1f`` or a decimal number, which may begin with zeros."""
        text = node.value.replace("_", "")
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


Loader.add_implicit_resolver(f"{TAG}float", FLOAT, list("-+0123456789."))
Loader.add_implicit_resolver(f"{TAG}int", INTEGER, list("-+0123456789"))
Loader.add_constructor(f"{TAG}int", Loader.construct_integer)
