"""What a chat template is told beside the messages: ``chat.template_args``.

The values become the template's own defaults, written in front of it. So whoever renders the template, in training, in
an evaluation or from the published model, makes the same text, and the fingerprint of the template holds them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

TODAY = "strftime_now"
"""The function by which a template writes today's date; as an argument, the text that it gives instead."""
GIVEN = ("messages", "tools", "documents", "add_generation_prompt")
"""What is handed to a template with each conversation."""
_BUILT_IN = {"raise_exception"}
A_DATE = chr(0xF0FFF)
"""A private-use character that stands for today's date."""
_MARKS = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
_PROBES = (
    [{"role": "user", "content": "question"}],
    [{"role": "system", "content": "rules"}, {"role": "user", "content": "question"}],
)


def with_defaults(template: str, args: Mapping[str, Any]) -> str:
    """The Jinja source of a template that has ``args`` as its defaults."""
    return "".join(_default(name, value) for name, value in sorted(args.items())) + template


def with_today_marked(template: str) -> str:
    """A template that writes :data:`A_DATE` where it would write today's."""
    return _macro(ascii(A_DATE)) + template if TODAY in template else template


@lru_cache(maxsize=16)
def names_of(template: str) -> frozenset[str]:
    """The names that a template leaves to whoever renders it; none where it can't be read.

    A name that it sets itself is left to others only where it asks whether that is defined.
    """
    from jinja2 import TemplateError, meta, nodes

    try:
        parsed = _environment().parse(_MARKS.sub("", template))
        open_names = meta.find_undeclared_variables(parsed)
    except TemplateError:
        return frozenset()
    stored = {name.name for name in parsed.find_all(nodes.Name) if name.ctx == "store"}
    asking = [*parsed.find_all(nodes.Test), *parsed.find_all(nodes.Filter)]
    asked = {one.node.name for one in asking if one.name in ("defined", "undefined", "default") and _is_name(one.node)}
    return frozenset(name for name in open_names - (stored - asked) - _BUILT_IN if not name.endswith("_token"))


def _is_name(node: Any) -> bool:
    from jinja2 import nodes

    return isinstance(node, nodes.Name)


def writes_today(template: str) -> bool:
    """Whether a template writes today's date before a question, tried with and without a system's message."""
    if TODAY not in template:
        return False
    from jinja2 import TemplateError

    made = _MARKS.sub("", with_today_marked(template))
    for messages in _PROBES:
        try:
            text = _environment().from_string(made).render(messages=messages, add_generation_prompt=True)
        except (TemplateError, TypeError, ValueError, LookupError):
            # Preparing the data says what the template refuses.
            continue
        if A_DATE in text:
            return True
    return False


def _default(name: str, value: Any) -> str:
    # A line of its own, whose end Jinja removes: what the template begins with stays at the beginning of a line.
    if name == TODAY:
        return _macro(ascii(value))
    return f"{{%- set {name} = {name} | default({value!a}) %}}\n"


def _macro(text: str) -> str:
    return f"{{%- macro {TODAY}(form) %}}{{{{ {text} }}}}{{% endmacro %}}\n"


def _environment() -> Any:
    """Jinja as transformers sets it up."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
