"""Checks a ``data`` section for contradictions, and for keys that nothing would read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from titanflow.common.errors import DataError, Problem
from titanflow.config.division import check_items, division_problems, written_keys
from titanflow.config.keys.chat_columns import check_declaration
from titanflow.config.keys.licenses import SOURCE_EXPECTED, is_license, is_link
from titanflow.config.keys.training import RENDERED_KINDS, SOURCE_KEYS, Data, is_divided, names_rows
from titanflow.config.mixture import mixture_members
from titanflow.config.module import Module

ONLY_CHATS = ("chat_format", "columns", "roles", "malformed", "overlong", "packing")
"""Keys that have no meaning for text."""
ONLY_TEXT = ("text_column", "document", "streaming")
"""Keys that have no meaning for conversations."""
ONLY_DATASETS = {"config": None, "split": "train", "revision": None}
"""Keys of datasets alone, with no meaning for files and built-in sources; with their defaults."""
MOST = 1_000_000
"""The most epochs of a mixture's source, and the most that one's weight may be times another's: the order of rows is
held in memory, up to where it repeats itself."""
KINDS = {
    "stdlib": "text",
    "stdlib_documented": "text",
    "stdlib_chats": "chat",
    "stdlib_pairs": "pairs",
    "stdlib_evals": "evals",
}
"""The kind of rows in each built-in source."""


def check_data(module: Module) -> list[Problem]:
    trained_on = _check_section(module, "data")
    # Rows of a held-out part have the values of `data` by default: a mistake in one of these is one mistake.
    told = {(one.origin, one.message, one.key.partition(".data.")[2]) for one in trained_on if one.origin}
    validated_on = _check_section(module, "validation_data")
    own = [one for one in validated_on if (one.origin, one.message, one.key.partition("_data.")[2]) not in told]
    return [*trained_on, *own]


def _check_section(module: Module, section: str) -> list[Problem]:
    data = module.config.get(section) or {}
    members = mixture_members(data)
    written = written_keys(module, section)
    problems = _check_mixture(module, section, data) if members else _check_one(module, section, data, written)
    for name, member in members.items():
        own = set(data["mixture"]["sources"][name])
        key = f"{section}.mixture.sources.{name}"
        problems += _check_one(module, key, member, own | written)
        problems += division_problems(module, section, key, member, own)
    if data and not any(is_divided(member) for member in members.values()):
        problems += division_problems(module, section, section, data, written)
    return problems


def check_evaluation_data(module: Module) -> list[Problem]:
    data = module.config.get("data") or {}
    if (problems := check_items(module)) or not names_rows(data) or data["kind"] == "evals":
        return problems
    return _check_one(module, "data", data, set())


def _check_one(module: Module, section: str, data: dict[str, Any], written: set[str]) -> list[Problem]:
    problems: list[Problem] = []
    named = [key for key in SOURCE_KEYS if data.get(key)]
    if len(named) > 1:
        hint = f"set {module.name}.{section}.{named[0]} to null, or name another data file in `{section}:`"
        message = f"two sources: {' and '.join(named)}"
        problems.append(module.problem(f"{section}.{named[1]}", message, expected="one of them", hint=hint))
    if isinstance(paths := data.get("path"), list) and not all(one.strip() for one in paths):
        message = f"found {paths}, and an empty text would be the current folder"
        problems.append(module.problem(f"{section}.path", message, 'files, folders or patterns; "." is this folder'))
    if (limit := data.get("limit")) is not None and limit < 1:
        expected, hint = "1 or more", "leave it out to read all rows"
        problems.append(module.problem(f"{section}.limit", f"found {limit}", expected, hint))
    if (stated := data.get("license")) is not None and not is_license(stated):
        hint = "for a licence of its own: license: other, and its text's address in `link`"
        problems.append(module.problem(f"{section}.license", f"found {stated!r}", SOURCE_EXPECTED, hint))
    if (link := data.get("link")) is not None and not is_link(link):
        problems.append(module.problem(f"{section}.link", f"found {link!r}", "the address of a web page: https://…"))
    if data.get("document", "file") != "file" and not data.get("path"):
        message = f"found {data['document']!r}, which means nothing without data.path"
        problems.append(module.problem(f"{section}.document", message, hint="leave it out"))
    for key, default in ONLY_DATASETS.items():
        is_written = module.origins.get(f"{section}.{key}", "default") != "default"
        if named and not data.get("dataset") and is_written and data.get(key, default) != default:
            message = f"found {data[key]!r}, which means nothing without data.dataset"
            problems.append(module.problem(f"{section}.{key}", message, hint="leave it out"))
    kind = data.get("kind", "text")
    if kind == "evals":
        message = "found 'evals': a stage trains on text, conversations or pairs"
        return [*problems, module.problem(f"{section}.kind", message, expected="text, chat or pairs")]
    if KINDS.get(data.get("source") or "", kind) != kind:
        message = f"found {data['source']!r}, which holds no {kind}"
        expected = next(source for source, held in KINDS.items() if held == kind)
        problems.append(module.problem(f"{section}.source", message, f"{expected}, with kind: {kind}"))
    is_rendered = kind in RENDERED_KINDS
    for key in ONLY_TEXT if is_rendered else ONLY_CHATS:
        if key in written and data.get(key):
            message = f"found {data[key]!r}, which means nothing with kind: {kind}"
            hint = "leave it out" if is_rendered else "leave it out, or set kind: chat"
            problems.append(module.problem(f"{section}.{key}", message, hint=hint))
    if kind == "pairs" and data.get("overlong") == "truncate_left":
        message = "found truncate_left, which would leave each side of a pair another part of the shared prompt"
        problems.append(module.problem(f"{section}.overlong", message, "drop, truncate_right or error"))
    return problems + (_check_declaration(module, section, data) if is_rendered else [])


def _check_declaration(module: Module, section: str, data: dict[str, Any]) -> list[Problem]:
    known = {key: data[key] for key in ("kind", "chat_format", "columns", "roles", "leave_out") if key in data}
    try:
        check_declaration(Data(**known), section)
    except DataError as error:
        return module.placed(error.problems)
    return []


def _check_mixture(module: Module, section: str, data: dict[str, Any]) -> list[Problem]:
    problems = []
    if named := [key for key in SOURCE_KEYS if data.get(key)]:
        message = f"two sources: {named[0]} and mixture"
        problems.append(module.problem(f"{section}.{named[0]}", message, expected="one of them"))
    if data.get("streaming"):
        message = "a mixture is read from prepared rows"
        problems.append(module.problem(f"{section}.streaming", message, expected="false"))
    key, sources, strategy = f"{section}.mixture.sources", data["mixture"]["sources"], data["mixture"]["strategy"]
    faults = [
        fault for name, source in sources.items() for fault in _check_source(module, f"{key}.{name}", source, strategy)
    ]
    return problems + (faults or list(_far_apart(module, key, sources)))


def _far_apart(module: Module, section: str, sources: dict[str, dict[str, Any]]) -> Iterator[Problem]:
    """Weights of which one would leave the other no row, or the order of rows no end that fits a memory."""
    weights = {name: source.get("weight", 1.0) for name, source in sources.items()}
    if not weights:
        return
    most, least = max(weights, key=weights.__getitem__), min(weights, key=weights.__getitem__)
    if weights[most] > MOST * weights[least]:
        found = f"found {weights[most]:g} beside {weights[least]:g} of {least}"
        expected = f"weights of which none is more than {MOST:,} times another"
        yield module.problem(f"{section}.{most}.weight", found, expected, "leave the lighter source out")


def _check_source(module: Module, key: str, source: dict[str, Any], strategy: str) -> list[Problem]:
    problems = [
        module.problem(f"{key}.{number}", f"found {source[number]}", expected="a number above 0")
        for number in ("weight", "epochs")
        if source.get(number, 1) <= 0
    ]
    if source.get("epochs", 1) > MOST:
        problems.append(module.problem(f"{key}.epochs", f"found {source['epochs']:g}", expected=f"at most {MOST:,}"))
    if "weight" in source and strategy == "concat":
        message, hint = "sources that follow one another have no weights", "give it epochs, or set strategy: interleave"
        problems.append(module.problem(f"{key}.weight", message, hint=hint))
    if not any(source.get(one) for one in SOURCE_KEYS):
        expected = f"one of {', '.join(SOURCE_KEYS)}, or data: file.yaml"
        problems.append(module.problem(key, "the source names no rows", expected))
    return problems


OF_TRAINING = (check_data,)
OF_EVALUATE = (check_evaluation_data,)
