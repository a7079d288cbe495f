"""The word that a wrong value stands for: a choice that has another name elsewhere, or one of a section's choices."""

from __future__ import annotations

from typing import Any

from titanflow.config.files.foreign_names import VALUES


def other_word(found: str, schema: dict[str, Any]) -> str:
    """The choice that differs in upper and lower case alone, or that has this name elsewhere; empty where none does."""
    choices = [one for option in schema.get("anyOf", [schema]) for one in option.get("enum", ())]
    meant = (found.lower(), VALUES.get(found.lower()))
    return next((one for one in choices if isinstance(one, str) and one.lower() in meant), "")


def section_hint(key: str, found: Any, schema: dict[str, Any]) -> str:
    """How to write a value that stands in place of a section, as others' ``optimizer: muon``; empty where none fits."""
    section, keys = key.rpartition(".")[2], schema.get("properties", {})
    if isinstance(found, bool) and "enable" in keys:
        return f"write {section}: {{enable: {str(found).lower()}}}"
    if not isinstance(found, str):
        return ""
    words = [(name, word) for name, one in keys.items() if (word := other_word(found, one))]
    # An optimizer's name may be that of the user's own code: no schema lists them.
    words += [("name", VALUES.get(found.lower(), found))] if "name" in keys else []
    return next((f"write {section}: {{{name}: {word}}}" for name, word in words), "")
