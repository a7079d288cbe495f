"""Which part of a divided source each section reads by default, and which settings are refused."""

from __future__ import annotations

import copy
from typing import Any

from titanflow.common.errors import Problem
from titanflow.config.keys.training import SOURCE_KEYS, HeldOut, is_divided, names_rows
from titanflow.config.mixture import mixture_members
from titanflow.config.module import Module

_TRAINING = {"data": ("train",), "validation_data": ("dev",)}
_EVALUATION = {"data": ("test", "dev")}
_BY_ITSELF = "the dev part of data"
_EXPECTED = "a share between 0 and 1 (0.01), or a number of rows from 1 (200)"


def sources(data: dict[str, Any], section: str) -> dict[str, dict[str, Any]]:
    """The config of each source of a section, or of each member of a mixture, by its dotted key."""
    members = mixture_members(data)
    return {f"{section}.mixture.sources.{name}": one for name, one in members.items()} if members else {section: data}


def settle_parts(module: Module) -> None:
    """Sets, in place, which part each section of a module reads where its sources are divided and nobody said.

    A training module without ``validation_data`` validates on the dev part of its data, if that has one.
    """
    if not module.trains:
        _settle_kind(module)
    elif module.config["validation"]["enable"] and not names_rows(module.config["validation_data"]):
        _validate_on_dev(module)
    for section, parts in (_TRAINING if module.trains else _EVALUATION).items():
        data = module.config.get(section)
        if data and not data["part"] and any(is_divided(one) for one in sources(data, section).values()):
            data["part"] = parts[0]


def _settle_kind(module: Module) -> None:
    """Held-out rows are read as training reads them: as text, unless ``kind`` says otherwise."""
    data = module.config.get("data") or {}
    holds_out = any(value is not None for value in (data.get("held_out") or {}).values())
    if holds_out and "kind" not in written_keys(module, "data"):
        data["kind"] = "text"


def _validate_on_dev(module: Module) -> None:
    data = module.config["data"]
    with_dev = [key for key, one in sources(data, "data").items() if one["source"] or _held_out(one).dev is not None]
    if not with_dev:
        return
    own = written_keys(module, "validation_data")
    validation = {**copy.deepcopy(data), "part": "dev", **{key: module.config["validation_data"][key] for key in own}}
    if members := mixture_members(data):
        # A validation reads each row once, so there is nothing to weigh.
        validation["mixture"]["phases"] = []
        mixed = validation["mixture"]["sources"]
        validation["mixture"]["sources"] = {
            name: mixed[name] for key, name in zip(sources(data, "data"), members, strict=True) if key in with_dev
        }
    module.config["validation_data"] = validation
    taken = {f"validation_{key}": origin for key, origin in module.origins.items() if key.startswith("data.")}
    module.origins |= {key: origin for key, origin in taken.items() if key.split(".")[1] not in own}
    if "part" not in own:
        module.origins["validation_data.part"] = _BY_ITSELF


def written_keys(module: Module, section: str) -> set[str]:
    """The keys of a section that someone wrote, without those that a default fills in."""
    found = (key.split(".") for key, origin in module.origins.items() if origin != "default")
    return {parts[1] for parts in found if parts[0] == section}


def validation_note(module: Module | None) -> str:
    """A plan's note on a module that validates on rows held out of its own data; empty for any other."""
    if module is None or module.origins.get("validation_data.part") != _BY_ITSELF:
        return ""
    return f"validates on the dev part of {module.config['data']['name'] or 'its data'}"


def division_problems(module: Module, section: str, key: str, data: dict[str, Any], written: set[str]) -> list[Problem]:
    """Shares or numbers of held-out rows that can't be, and a part that is missing or not for this section.

    ``key`` is the section, or ``<section>.mixture.sources.<name>``; ``data`` is that source's config.
    """
    held_out = _held_out(data)
    if problems := _held_out_problems(module, key, data, held_out):
        return problems
    part, allowed = data.get("part"), (_TRAINING if module.trains else _EVALUATION)[section]
    if not is_divided(data):
        if not part or "part" not in written:
            return []
        hint = "hold rows out, held_out: {dev: 0.01, test: 200}, wherever these rows are named, or leave it out"
        return [_problem(module, key, "part", f"found {part}, and nothing of the source is held out", "", hint)]
    if part not in allowed:
        return [_wrong_part(module, key, part, allowed)]
    if part != "train" and not data.get("source") and getattr(held_out, str(part)) is None:
        message = f"{section} reads the {part} part, and the source holds none out"
        return [_problem(module, key, "held_out", message, f"{part}: {_EXPECTED}")]
    return []


def _wrong_part(module: Module, key: str, part: Any, allowed: tuple[str, ...]) -> Problem:
    hint = "rows that are held out are never trained on" if allowed == ("train",) else ""
    hint = hint or "training reads train, validation dev, and evaluation test, or dev to choose by"
    return _problem(module, key, "part", f"found {part}", " or ".join(allowed), hint)


def _held_out(data: dict[str, Any]) -> HeldOut:
    return HeldOut(**data.get("held_out") or {})


def _held_out_problems(module: Module, key: str, data: dict[str, Any], held_out: HeldOut) -> list[Problem]:
    found = {name: value for name in ("dev", "test") if (value := getattr(held_out, name)) is not None}
    if found and data.get("source"):
        message, hint = f"{data['source']} has parts of its own", "leave it out; `part` says which one is read"
        return [_problem(module, key, "held_out", message, hint=hint)]
    problems = []
    for name, value in found.items():
        if not (0 < value < 1 if isinstance(value, float) else value >= 1):
            problems.append(_problem(module, key, f"held_out.{name}", f"found {value}", _EXPECTED))
        elif data.get("streaming") and isinstance(value, int):
            message = f"found {value}, and a stream is divided row by row, before its rows are known"
            problems.append(_problem(module, key, f"held_out.{name}", message, "a share between 0 and 1"))
    shares = [value for value in found.values() if isinstance(value, float)]
    if not problems and sum(shares) >= 1:
        message = f"found {' and '.join(map(str, shares))}, which leaves nothing to train on"
        return [_problem(module, key, f"held_out.{next(iter(found))}", message, "shares that are below 1 together")]
    return problems


def check_items(module: Module) -> list[Problem]:
    data = module.config.get("data") or {}
    if not names_rows(data):
        return []
    if mixture_members(data):
        expected = "one source: source, path or dataset"
        hint = "name the data file of one of its sources, which sets held_out itself"
        return [_problem(module, "data", "mixture", "evaluation items are made of one source", expected, hint)]
    if data["streaming"]:
        return [module.problem("data.streaming", "evaluation items are prepared", "false")]
    if data["kind"] == "evals":
        return _check_files(module, data)
    if data["source"] == "stdlib_evals":
        return [module.problem("data.kind", f"found {data['kind']}, and the source makes items", "evals")]
    if not is_divided(data):
        message = "evaluation items are rows that are held out, and the source holds none out"
        hint = "kind: evals takes the files as they are"
        return [_problem(module, "data", "held_out", message, f"test: {_EXPECTED}", hint)]
    return division_problems(module, "data", "data", data, set())


def written_at(module: Module, key: str, name: str) -> str:
    """Where a value of a source was written: with it, in the section around it, or else where its rows are named.

    Where ``name`` is a section, any of its values counts.
    """
    around = key.partition(".")[0]
    for dotted in (f"{key}.{name}", f"{around}.{name}", *(f"{key}.{one}" for one in SOURCE_KEYS)):
        for one, origin in module.origins.items():
            if origin != "default" and (one == dotted or one.startswith(f"{dotted}.")):
                return origin
    return ""


def _problem(module: Module, key: str, name: str, message: str, expected: str = "", hint: str = "") -> Problem:
    return Problem(message, f"{module.name}.{key}.{name}", written_at(module, key, name), expected, hint)


def _check_files(module: Module, data: dict[str, Any]) -> list[Problem]:
    """Keys that mean nothing for files that are taken as they are, or for the built-in source's items."""
    named = [key for key in SOURCE_KEYS if data.get(key)]
    if len(named) > 1:
        hint = f"set {module.name}.data.{named[0]} to null, or name another data file in `data:`"
        return [module.problem(f"data.{named[1]}", f"two sources: {named[0]} and {named[1]}", "one of them", hint)]
    if data["dataset"] or (data["source"] and data["source"] != "stdlib_evals"):
        hint = "a task's YAML names a dataset of the Hub itself, in dataset_path"
        return [module.problem(f"data.{named[0]}", f"found {data[named[0]]}", "path, or source: stdlib_evals", hint)]
    if data["source"] and data["part"] not in _EVALUATION["data"]:
        return [_wrong_part(module, "data", data["part"], _EVALUATION["data"])]
    of_source = {"part"} if data["source"] else set()
    unread = written_keys(module, "data") - {"name", "kind", "source", "path"} - of_source
    message, expected = "means nothing for files that are taken as they are", "left out, or kind: text or chat"
    return [_problem(module, "data", key, message, expected) for key in sorted(unread) if data.get(key)]
