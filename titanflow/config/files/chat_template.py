"""Chat templates: the built-in ones, a tokenizer's own, and a user's ``.jinja`` files."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path

from titanflow.common.errors import DataError, Problem
from titanflow.common.files import expanded

TEMPLATE_FILE = "chat_template.jinja"
"""The file of a tokenizer's folder, or of prepared rows, that holds their chat template."""
CHATML = "chatml"
LLAMA3 = "llama3"
ZEPHYR = "zephyr"
TOKENS = {
    CHATML: ("<|im_start|>", "<|im_end|>"),
    LLAMA3: ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ZEPHYR: (),
}
"""The built-in templates, each with the special tokens that it writes beside the tokenizer's own end of text. Zephyr's
marks of a role are plain words, so that any tokenizer has them, and anybody can write them into a question."""
_BUILT_IN = {name: Path(__file__).with_name(f"{name}.jinja") for name in TOKENS}
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


def template_text(template: str) -> str:
    """The Jinja source of a template, given by a built-in name or a file's path.

    Raises:
        DataError: there is no such template.
    """
    path = _BUILT_IN.get(template, expanded(template))
    if not path.is_file():
        expected = f"one of {', '.join(_BUILT_IN)}, or the path of a .jinja file"
        raise DataError(Problem(f"chat template {template} isn't there", "chat.template", expected=expected))
    return path.read_text(encoding="utf-8")


def template_of(tokenizer: Path) -> str | None:
    """The Jinja source of a tokenizer's own template, of several the one called ``default``; None without one."""
    if (own := tokenizer / TEMPLATE_FILE).is_file():
        return own.read_text(encoding="utf-8")
    config = tokenizer / "tokenizer_config.json"
    found = json.loads(config.read_text(encoding="utf-8")).get("chat_template") if config.is_file() else None
    if isinstance(found, list):
        found = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}.get("default")
    return found if isinstance(found, str) else None


def resolve_template(template: str | None, tokenizer: Path | None) -> str:
    """The Jinja source to train with: that of ``chat.template``, else the tokenizer's own, else ``chatml``.

    The tokenizer's folder need not exist yet: a tokenizer that is trained here has ``chatml``.

    Raises:
        DataError: see :func:`template_text`.
    """
    if template is not None:
        return template_text(template)
    return (template_of(tokenizer) if tokenizer is not None else None) or template_text(CHATML)


def template_digest(text: str) -> str:
    """SHA-256 of a template's source, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def marks_generation(text: str) -> bool:
    """Whether a template marks the assistant's text with ``{% generation %}``."""
    return bool(_GENERATION.search(text))


@cache
def is_built_in(text: str) -> bool:
    """Whether a template's source is a built-in one."""
    return text in [path.read_text(encoding="utf-8") for path in _BUILT_IN.values()]
