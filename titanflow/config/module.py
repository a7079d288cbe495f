"""One module of an experiment, resolved: its files and overrides merged, checked and completed with defaults."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from titanflow.base_model import BaseArchitecture
from titanflow.config import bounds
from titanflow.config.additions import TRAINING_SECTIONS
from titanflow.config.after_training import Evaluate, Publish
from titanflow.config.architecture import resolve_architecture
from titanflow.config.bounds import bounded
from titanflow.config.schema import (
    Schema,
    check,
    dataclass_schema,
    defaults,
    inline,
    merge_schemas,
    typed,
)
from titanflow.config.snapshot import load_snapshot
from titanflow.config.tree import ConfigTree, load
from titanflow.config.yaml_source import Leaf, Tree, first_origin, flatten, leaves, merge, plain
from titanflow.custom_code import reach_own_code
from titanflow.errors import ConfigError, Problem

STAGE_OF = {
    "pretrain": "pretrain",
    "pre_trainer": "pretrain",
    "sft": "sft",
    "post_trainer": "sft",
    "evaluate": "evaluate",
    "publish": "publish",
}
"""The stage that a module is, by its name; Primus's names are known too."""

FRAMEWORKS = {
    "pretrain": "torchtitan",
    "sft": "torchtitan",
    "evaluate": "lm_eval",
    "publish": "huggingface_hub",
}


@dataclass
class Module:
    """What a stage will get.

    ``config`` is complete: every section and key, defaults included; ``origins`` says of each dotted key where
    its value comes from. For a training module ``model_overrides`` is flat and ``model_args`` the arguments
    that the model will be built with; ``base`` is what an sft starts from.
    """

    name: str
    stage: str
    framework: str
    config: dict[str, Any]
    origins: dict[str, str]
    model_overrides: dict[str, Any] = field(default_factory=dict)
    model_args: dict[str, Any] = field(default_factory=dict)
    base: BaseArchitecture | None = None
    ignored: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def trains(self) -> bool:
        """Whether torchtitan runs it."""
        return self.framework == "torchtitan"

    def problem(self, key: str, message: str, expected: str = "", hint: str = "") -> Problem:
        """What is wrong with one of its values, with where that was written."""
        return Problem(message, f"{self.name}.{key}", self.origins.get(key, ""), expected, hint)

    def values(self) -> dict[str, tuple[Any, str]]:
        """Each dotted key with its value and origin, the model's arguments among them as ``model.<field>``."""
        flat = flatten(self.config) | {f"model.{key}": value for key, value in flatten(self.model_args).items()}
        return {key: (value, self.origins.get(key, "")) for key, value in flat.items()}


@dataclass(frozen=True)
class Entry:
    """One entry of an experiment's ``modules``: as written, what is set over it, and what it shares with all."""

    name: str
    spec: Tree
    settings: Tree
    launcher: Tree
    ignore: list[str]


def build_module(entry: Entry, tree: ConfigTree, earlier: dict[str, Module], problems: list[Problem]) -> Module | None:
    """Resolves one entry of an experiment's ``modules``; what is wrong goes to ``problems``.

    ``earlier`` holds the modules before it, of which an sft takes its architecture.
    """
    name, spec, key = entry.name, entry.spec, f"modules.{entry.name}"
    stage = STAGE_OF.get(name)
    if stage is None:
        problems.append(Problem("unknown module", key=key, origin=first_origin(spec), expected=", ".join(STAGE_OF)))
        return None
    named = spec.get("framework")
    framework = str(named.value) if isinstance(named, Leaf) and named.value else FRAMEWORKS[stage]
    if framework != FRAMEWORKS[stage]:
        message, origin = f"found {framework!r}", first_origin(named)
        problems.append(Problem(message, key=f"{key}.framework", origin=origin, expected=FRAMEWORKS[stage]))
        return None
    module = Module(name, stage, framework, {}, {})
    try:
        merged = _merge_files(entry, tree, module, problems)
    except ConfigError as error:
        problems += error.problems
        return None
    if broken := _check_sections(merged, stage_schema(stage), name):
        problems += broken
        return None
    schema, base_origin = _schema(module, merged, problems)
    merged = typed(merged, schema)
    overrides = resolve_architecture(module, merged, entry, schema, earlier, problems) if module.trains else {}
    module.ignored = remove_unknown(merged, entry.ignore, schema, name)
    problems += check(merged, schema, f"{name}.")
    _complete(module, merged, schema, base_origin, overrides)
    return module


def _merge_files(entry: Entry, tree: ConfigTree, module: Module, problems: list[Problem]) -> Tree:
    key = f"modules.{entry.name}"
    merged: Tree = {"launcher": entry.launcher} if entry.launcher and module.stage != "publish" else {}
    for room, name in (("modules", "config"), ("models", "model")):
        leaf = entry.spec.get(name)
        if isinstance(leaf, Leaf) and leaf.value is not None:
            merged = merge(merged, load(tree.file(room, leaf, f"{key}.{name}", module.framework), problems))
    for name in ("data", "validation_data"):
        leaf = entry.spec.get(name)
        if isinstance(leaf, Leaf) and leaf.value is not None:
            path = tree.file("data", leaf, f"{key}.{name}")
            merged = {**merged, name: {"name": Leaf(path.stem, leaf.origin), **load(path, problems)}}
    overrides = entry.spec.get("overrides")
    if isinstance(overrides, dict):
        merged = merge(merged, overrides)
    merged = merge(merged, entry.settings)
    for name in ("data", "validation_data"):
        _read_mixture(merged.get(name), f"{entry.name}.{name}", tree, problems)
    return merged


def _read_mixture(data: Any, key: str, tree: ConfigTree, problems: list[Problem]) -> None:
    """Puts the data files that a mixture's sources name in their place."""
    mixture = data.get("mixture") if isinstance(data, dict) else None
    sources = mixture.get("sources") if isinstance(mixture, dict) else None
    if not isinstance(sources, dict):
        return
    for name, source in sources.items():
        leaf = source.pop("data", None) if isinstance(source, dict) else None
        if isinstance(leaf, Leaf) and leaf.value is not None:
            path = tree.file("data", leaf, f"{key}.mixture.sources.{name}.data")
            sources[name] = merge(load(path, problems), source)


def _check_sections(merged: Tree, schema: Schema, name: str) -> list[Problem]:
    """What stands in place of a section, without which nothing else can be looked at."""
    sections = [key for key, one in schema["properties"].items() if "properties" in one]
    return check(
        {key: value for key, value in merged.items() if key in sections and isinstance(value, Leaf)}, schema, f"{name}."
    )


@cache
def stage_schema(stage: str) -> Schema:
    """What a stage's config may hold, each number within its bounds."""
    if stage == "publish":
        return dataclass_schema(Publish)
    if stage == "evaluate":
        return bounded(dataclass_schema(Evaluate), bounds.EVALUATE)
    merged = merge_schemas(inline(load_snapshot()["job_config"]), dataclass_schema(TRAINING_SECTIONS))
    return bounded(merged, bounds.TRAINING)


def _schema(module: Module, merged: Tree, problems: list[Problem]) -> tuple[Schema, str]:
    schema = stage_schema(module.stage)
    if not module.trains:
        return schema, "default"
    custom = plain(merged.get("experimental", {}).get("custom_args_module")) if "experimental" in merged else None
    custom = custom or (plain(merged.get("job", {}).get("custom_config_module")) if "job" in merged else None)
    if custom and custom != "titan.job_config":
        reach_own_code()
        try:
            schema = merge_schemas(schema, dataclass_schema(importlib.import_module(str(custom)).JobConfig))
        except ImportError as error:
            module.warnings.append(f"{module.name}.experimental.custom_args_module: can't import {custom}: {error}")
    return schema, f"torchtitan {load_snapshot()['torchtitan']}"


def _complete(module: Module, merged: Tree, schema: Schema, base_origin: str, overrides: Tree) -> None:
    complete = merge(
        _as_leaves(defaults(schema)),
        {key: value for key, value in merged.items() if key in schema["properties"] and not _is_empty(value)},
    )
    ours = dataclass_schema(TRAINING_SECTIONS)["properties"] if module.trains else {}
    module.config = plain(complete)
    written = {key: leaf.origin for key, leaf in leaves(merged)}
    sections = (module.config.get("training"), module.config.get("validation"))
    if module.trains and "validation.seq_len" not in written and all(isinstance(one, dict) for one in sections):
        # torchtitan's 2048 is longer than the rows of most models.
        module.config["validation"]["seq_len"] = module.config["training"]["seq_len"]
        written["validation.seq_len"] = "as training.seq_len"
    model_origin = (
        "{name}/{flavor} of {base}".format(**module.config["model"], base=base_origin) if module.trains else ""
    )
    for key in flatten(module.config):
        section, name = [*key.split("."), ""][:2]
        is_ours = name in ours.get(section, {}).get("properties", {}) or section == "launcher"
        module.origins[key] = written.get(key) or ("default" if is_ours else base_origin)
    args_origins = {f"model.{key}": leaf.origin for key, leaf in leaves(overrides)}
    for key in flatten(module.model_args):
        module.origins[f"model.{key}"] = args_origins.get(f"model.{key}", model_origin)


def _is_empty(value: Leaf | Tree) -> bool:
    """Whether null stands here: a section that is written and left empty has its defaults."""
    return isinstance(value, Leaf) and value.value is None


def remove_unknown(tree: Tree, ignore: list[str], schema: Schema, module: str = "") -> list[str]:
    """Takes each key out of ``tree`` that ``ignore`` names and the schema lacks; returns ``key (origin)`` of each.

    ``ignore`` holds dotted keys, of a section or of a value, with or without the module's name before it.
    """
    removed = []
    for pattern in ignore:
        dotted = pattern.removeprefix(f"{module}.")
        *above, last = dotted.split(".")
        section: Any = tree
        properties: Any = schema
        for part in above:
            section = section.get(part) if isinstance(section, dict) else None
            properties = properties.get("properties", {}).get(part, {})
        if isinstance(section, dict) and last in section and last not in properties.get("properties", {}):
            key = f"{module}.{dotted}" if module else dotted
            removed.append(f"{key} ({first_origin(section.pop(last))})")
    return removed


def _as_leaves(values: Any) -> Any:
    """Plain mappings as a tree whose leaves have no origin."""
    if isinstance(values, dict):
        return {key: _as_leaves(value) for key, value in values.items()}
    return Leaf(values, "")
