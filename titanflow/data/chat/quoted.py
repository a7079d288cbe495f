"""Hides special tokens that messages and tools quote while a template renders, so that they stay text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

# Private-use characters that stand for the tokens.
_STAND_INS = [chr(code) for code in range(0xF0000, 0xF0400)]


def hide_quoted(
    messages: list[dict[str, Any]], tools: Any, special: re.Pattern[str]
) -> tuple[list[dict[str, Any]], Any, dict[str, str]]:
    """Messages and tools with a stand-in for each special token that they quote, and a map of stand-ins to tokens."""
    everything = "\n".join(_strings([messages, tools]))
    found = set(special.findall(everything))
    if not found:
        return messages, tools, {}
    free = (character for character in _STAND_INS if character not in everything)
    # A token's text can hold another's; the longer one must be replaced first.
    quoted = {next(free): token for token in sorted(found, key=len, reverse=True)}
    texts = {token: stand_in for stand_in, token in quoted.items()}
    return _replace(messages, texts), _replace(tools, texts), quoted


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in itertools.chain(value, value.values()) if isinstance(value, dict) else value:
            yield from _strings(item)


def _replace(value: Any, texts: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for text, stand_in in texts.items():
            value = value.replace(text, stand_in)
        return value
    if isinstance(value, dict):
        return {_replace(key, texts): _replace(item, texts) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, texts) for item in value]
    return value
