"""Arguments of a chat template beside the messages: ``chat.template_args``.

The values become the template's own defaults, written in front of it. So training, evaluation and users of the
published model all render the same text, and the template's fingerprint covers the values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

TODAY = "strftime_now"
"""The function by which a template writes today's date; as an argument, the text to write instead."""
GIVEN = ("messages", "tools", "documents", "add_generation_prompt")
"""Names that a template gets with each conversation."""
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
    """The template, with :data:`A_DATE` written in place of today's date."""
    return _macro(ascii(A_DATE)) + template if TODAY in template else template


@lru_cache(maxsize=16)
def names_of(template: str) -> frozenset[str]:
    """The names that a template expects from its caller; none where it can't be parsed.

    A name that it sets itself counts only where it also asks whether the name is defined.
    """
    from jinja2 import TemplateError, meta, nodes

    try:
        parsed = _environment().parse(_MARKS.sub("", template))
        open_names = meta.find_undeclared_variables(parsed)
    except TemplateError:
        return frozenset()
    stored = {name.name for name in parsed.find_all(nodes.Name) if name.ctx == "store"}
    asking = [*parsed.find_all(nodes.Test), *parsed.find_all(nodes.Filter)]
    of_names = [(one.name, one.node.name) for one in asking if isinstance(one.node, nodes.Name)]
    asked = {name for test, name in of_names if test in ("defined", "undefined", "default")}
    return frozenset(name for name in open_names - (stored - asked) - _BUILT_IN if not name.endswith("_token"))


def writes_today(template: str) -> bool:
    """Whether a template writes today's date in a prompt; tried with and without a system message."""
    if TODAY not in template:
        return False
    from jinja2 import TemplateError

    made = _MARKS.sub("", with_today_marked(template))
    for messages in _PROBES:
        try:
            text = _environment().from_string(made).render(messages=messages, add_generation_prompt=True)
        except (TemplateError, TypeError, ValueError, LookupError):
            # The preparation of the data reports what the template refuses.
            continue
        if A_DATE in text:
            return True
    return False


def _default(name: str, value: Any) -> str:
    # Jinja removes the newline (trim_blocks), so the template itself still begins at the start of a line.
    if name == TODAY:
        return _macro(ascii(value))
    return f"{{%- set {name} = {name} | default({value!a}) %}}\n"


def _macro(text: str) -> str:
    return f"{{%- macro {TODAY}(form) %}}{{{{ {text} }}}}{{% endmacro %}}\n"


def _environment() -> Any:
    """Jinja as transformers sets it up."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
