"""One module of an experiment, resolved: its files and overrides merged, checked and completed with defaults."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

from titanflow.config.additions import TRAINING_SECTIONS, Evaluate, Publish
from titanflow.config.model_args import check_flavor, family, read_params, resolve_model_args, split_overrides
from titanflow.config.schema import (
    Schema,
    check,
    dataclass_schema,
    defaults,
    inline,
    merge_schemas,
)
from titanflow.config.snapshot import load_snapshot
from titanflow.config.tree import ConfigTree, load
from titanflow.config.yaml_source import Leaf, Tree, first_origin, leaves, merge, plain
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
    that the model will be built with.
    """

    name: str
    stage: str
    framework: str
    config: dict[str, Any]
    origins: dict[str, str]
    model_overrides: dict[str, Any] = field(default_factory=dict)
    model_args: dict[str, Any] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def trains(self) -> bool:
        """Whether torchtitan runs it."""
        return self.framework == "torchtitan"

    def values(self) -> dict[str, tuple[Any, str]]:
        """Each dotted key with its value and origin, the model's arguments among them as ``model.<field>``."""
        flat = {key: leaf.value for key, leaf in leaves(_as_leaves(self.config))}
        flat |= {f"model.{key}": leaf.value for key, leaf in leaves(_as_leaves(self.model_args))}
        return {key: (value, self.origins.get(key, "")) for key, value in flat.items()}


def build_module(
    name: str,
    spec: Tree,
    tree: ConfigTree,
    launcher: Tree,
    ignore: list[str],
    earlier: dict[str, Module],
    problems: list[Problem],
) -> Module | None:
    """Resolves one entry of an experiment's ``modules``; what is wrong goes to ``problems``.

    ``earlier`` holds the modules before it, of which an sft takes its architecture.
    """
    key = f"modules.{name}"
    stage = STAGE_OF.get(name)
    if stage is None:
        problems.append(Problem("unknown module", key=key, origin=first_origin(spec), expected=", ".join(STAGE_OF)))
        return None
    named = spec.get("framework")
    framework = str(named.value) if isinstance(named, Leaf) and named.value else FRAMEWORKS[stage]
    if framework != FRAMEWORKS[stage]:
        problems.append(
            Problem(
                f"found {framework!r}",
                key=f"{key}.framework",
                origin=first_origin(named),
                expected=FRAMEWORKS[stage],
            )
        )
        return None
    try:
        merged = _merge_files(spec, tree, framework, launcher if stage != "publish" else {}, key, problems)
    except ConfigError as error:
        problems += error.problems
        return None
    module = Module(name, stage, framework, {}, {})
    schema, base_origin = _schema(module, merged, problems)
    overrides: Tree = {}
    if module.trains:
        overrides = _model(module, merged, spec, schema, earlier, problems)
    module.ignored = remove_unknown(merged, ignore, schema, name)
    problems += check(merged, schema, f"{name}.")
    _complete(module, merged, schema, base_origin, overrides)
    return module


def _merge_files(
    spec: Tree, tree: ConfigTree, framework: str, launcher: Tree, key: str, problems: list[Problem]
) -> Tree:
    merged: Tree = {"launcher": launcher} if launcher else {}
    for room, name in (("modules", "config"), ("models", "model")):
        leaf = spec.get(name)
        if isinstance(leaf, Leaf) and leaf.value is not None:
            merged = merge(merged, load(tree.file(room, leaf, f"{key}.{name}", framework), problems))
    for name in ("data", "validation_data"):
        leaf = spec.get(name)
        if isinstance(leaf, Leaf) and leaf.value is not None:
            path = tree.file("data", leaf, f"{key}.{name}")
            section = {"name": Leaf(path.stem, leaf.origin), **load(path, problems)}
            merged = {**merged, name: section}
    overrides = spec.get("overrides")
    return merge(merged, overrides) if isinstance(overrides, dict) else merged


def _schema(module: Module, merged: Tree, problems: list[Problem]) -> tuple[Schema, str]:
    if not module.trains:
        return dataclass_schema(Evaluate if module.stage == "evaluate" else Publish), "default"
    schema = merge_schemas(inline(load_snapshot()["job_config"]), dataclass_schema(TRAINING_SECTIONS))
    custom = plain(merged.get("experimental", {}).get("custom_args_module")) if "experimental" in merged else None
    custom = custom or (plain(merged.get("job", {}).get("custom_config_module")) if "job" in merged else None)
    if custom and custom != "titan.job_config":
        try:
            schema = merge_schemas(schema, dataclass_schema(importlib.import_module(str(custom)).JobConfig))
        except ImportError as error:
            module.warnings.append(f"{module.name}.experimental.custom_args_module: can't import {custom}: {error}")
    return schema, f"torchtitan {load_snapshot()['torchtitan']}"


def _model(
    module: Module,
    merged: Tree,
    spec: Tree,
    schema: Schema,
    earlier: dict[str, Module],
    problems: list[Problem],
) -> Tree:
    """Sets the module's model arguments and returns the overrides; ``merged`` keeps torchtitan's own keys."""
    section = merged.get("model") if isinstance(merged.get("model"), dict) else {}
    assert isinstance(section, dict)
    base = _base(module, merged, earlier)
    if base is not None:
        section = _inherited(base, section)
    name, flavor = section.get("name"), section.get("flavor")
    found = family(str(name.value)) if isinstance(name, Leaf) else None
    section, overrides = split_overrides(section, schema["properties"]["model"], found and found["schema"])
    overrides = merge(overrides, read_params(spec.get("params", {}), f"{module.name}.params", problems))
    merged["model"] = section
    custom = merged.get("experimental", {}).get("custom_import")
    if found is None and isinstance(custom, Leaf) and custom.value:
        module.model_overrides = {key: leaf.value for key, leaf in leaves(overrides)}
        return overrides
    if module.stage == "sft" and base is None and name is None:
        return overrides
    wrong = check_flavor(name, flavor, module.name, first_origin(spec))
    problems += wrong
    if wrong:
        return overrides
    assert isinstance(name, Leaf)
    assert isinstance(flavor, Leaf)
    before = len(problems)
    module.model_args = resolve_model_args(name.value, flavor.value, overrides, module.name, problems)
    module.model_overrides = {key: leaf.value for key, leaf in leaves(overrides)}
    if base is not None and len(problems) == before:
        _inherit_args(module, base, name, flavor, overrides, problems)
    return overrides


def _base(module: Module, merged: Tree, earlier: dict[str, Module]) -> Module | None:
    if module.stage != "sft":
        return None
    named = merged.get("sft", {}).get("base")
    wanted = named.value if isinstance(named, Leaf) else "pretrain"
    return next((other for other in earlier.values() if wanted in (other.name, other.stage) and other.trains), None)


def _inherited(base: Module, section: Tree) -> Tree:
    """The base's model under what the sft says of its own."""
    origin = f"inherited from {base.name}"
    keys = ("name", "flavor", "converters")
    return {**{key: Leaf(base.config["model"][key], origin) for key in keys}, **section}


def _inherit_args(
    module: Module, base: Module, name: Leaf, flavor: Leaf, overrides: Tree, problems: list[Problem]
) -> None:
    """An sft has its base's architecture: whatever it says of its own must say the same."""
    wanted = {
        "name": (name, base.config["model"]["name"]),
        "flavor": (flavor, base.config["model"]["flavor"]),
    }
    base_args = {key: leaf.value for key, leaf in leaves(_as_leaves(base.model_args))}
    wanted |= {key: (leaf, base_args.get(key)) for key, leaf in leaves(overrides)}
    for key, (leaf, value) in wanted.items():
        if leaf.value != value:
            problems.append(
                Problem(
                    f"found {leaf.value!r}, and {base.name} has {value!r}: fine-tuning keeps its base's architecture",
                    key=f"{module.name}.model.{key}",
                    origin=leaf.origin,
                    hint=f"leave it out here, or change {base.name}.model.{key} and pretrain again",
                )
            )
    module.model_args, module.model_overrides = base.model_args, base.model_overrides


def _complete(module: Module, merged: Tree, schema: Schema, base_origin: str, overrides: Tree) -> None:
    complete = merge(
        _as_leaves(defaults(schema)),
        {key: value for key, value in merged.items() if key in schema["properties"]},
    )
    ours = dataclass_schema(TRAINING_SECTIONS)["properties"] if module.trains else {}
    module.config = plain(complete)
    model_origin = (
        "{name}/{flavor} of {base}".format(**module.config["model"], base=base_origin) if module.trains else ""
    )
    written = {key: leaf.origin for key, leaf in leaves(merged)}
    for key, _ in leaves(complete):
        section, _, name = key.partition(".")
        is_ours = name in ours.get(section, {}).get("properties", {}) or section == "launcher"
        module.origins[key] = written.get(key) or ("default" if is_ours else base_origin)
    args_origins = {f"model.{key}": leaf.origin for key, leaf in leaves(overrides)}
    for key, _ in leaves(_as_leaves(module.model_args)):
        module.origins[f"model.{key}"] = args_origins.get(f"model.{key}", model_origin)


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
    if isinstance(values, dict) and values:
        return {key: _as_leaves(value) for key, value in values.items()}
    return Leaf(values, "")
