"""Builds a module of an experiment: merges its files and overrides, checks them, fills in the defaults."""

from __future__ import annotations

import importlib

from titanflow.architectures.custom_code import reach_own_code
from titanflow.architectures.torchtitan import load_snapshot
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.architecture import resolve_architecture
from titanflow.config.files.schema import Schema, check, completed, dataclass_schema, merge_schemas, typed
from titanflow.config.files.tree import ConfigTree
from titanflow.config.ignored import remove_unknown, remove_values
from titanflow.config.keys.training import TRAINING_SECTIONS
from titanflow.config.model_args import check_params, take_unknown
from titanflow.config.module import STAGE_OF, Module, stage_schema
from titanflow.config.module_files import Entry, merge_files
from titanflow.files.yaml_source import Leaf, Replacing, Tree, first_origin, flatten, leaves, plain, remade

FRAMEWORKS = {"pretrain": "torchtitan", "sft": "torchtitan", "evaluate": "lm_eval", "publish": "huggingface_hub"}


def build_module(entry: Entry, tree: ConfigTree, earlier: dict[str, Module], problems: list[Problem]) -> Module | None:
    """Resolves one entry of ``modules``; mistakes go to ``problems``. The base of an sft may be among ``earlier``."""
    name, spec, key = entry.name, entry.spec, entry.key
    stage = STAGE_OF.get(name)
    if stage is None:
        problems.append(Problem("unknown module", key=key, origin=first_origin(spec), expected=", ".join(STAGE_OF)))
        return None
    named = spec.get("framework")
    framework = str(named.value) if isinstance(named, Leaf) and named.value is not None else FRAMEWORKS[stage]
    if framework != FRAMEWORKS[stage]:
        message, origin = f"found {framework!r}", first_origin(named)
        problems.append(Problem(message, key=f"{key}.framework", origin=origin, expected=FRAMEWORKS[stage]))
        return None
    module = Module(name, stage, framework, {}, {})
    module.named["framework"] = (framework, named.origin if isinstance(named, Leaf) else "default")
    try:
        merged = merge_files(entry, tree, module, problems)
    except ConfigError as error:
        problems += error.problems
        return None
    schema = stage_schema(stage)
    merged = typed(_without_empty(merged, schema), schema)
    # With a value in place of a section, or the other way round, nothing else can be looked at.
    if broken := check(_other_than_values(merged, schema), schema, f"{name}."):
        problems += broken
        return None
    module.ignored = remove_values(merged, entry.ignored, name)
    schema, base_origin = _schema(module, merged, problems)
    merged = typed(merged, schema)
    overrides = resolve_architecture(module, merged, entry, schema, earlier, problems) if module.trains else {}
    problems += check_params(entry.spec.get("params"), f"{name}.params", schema, module.trains)
    module.ignored += remove_unknown(merged, entry.ignored, schema, name)
    if module.trains and isinstance(merged.get("model"), dict):
        problems += take_unknown(merged["model"], schema["properties"]["model"], name)
    problems += check(merged, schema, f"{name}.")
    _complete(module, merged, schema, base_origin, overrides)
    return module


def _other_than_values(tree: Tree, schema: Schema) -> Tree:
    """The known keys that have something else in place of a section, or a mapping or list as their value."""
    found: Tree = {}
    for key, value in tree.items():
        below = schema["properties"].get(key, {})
        if "properties" in below:
            is_section = isinstance(value, dict) and not isinstance(value, Replacing)
            found[key] = _other_than_values(value, below) if is_section else value
        elif below and (isinstance(value, dict) or isinstance(value.value, dict | list)):
            found[key] = value
    return found


def _schema(module: Module, merged: Tree, problems: list[Problem]) -> tuple[Schema, str]:
    schema = stage_schema(module.stage)
    if not module.trains:
        return schema, "default"
    custom = plain(merged.get("experimental", {}).get("custom_args_module"))
    custom = custom or plain(merged.get("job", {}).get("custom_config_module"))
    if custom and custom != "titan.train.job_config":
        reach_own_code()
        try:
            schema = merge_schemas(schema, dataclass_schema(importlib.import_module(str(custom)).JobConfig))
        except ImportError as error:
            module.warnings.append(f"{module.name}.experimental.custom_args_module: can't import {custom}: {error}")
        except Exception as error:
            key, expected = "experimental.custom_args_module", "a module with a dataclass JobConfig"
            message = f"{custom}: {type(error).__name__}: {error}"
            origin = next((leaf.origin for _, leaf in leaves(merged) if leaf.value == custom), "")
            problems.append(Problem(message, f"{module.name}.{key}", origin, expected))
    return schema, f"torchtitan {load_snapshot()['torchtitan']}"


def _complete(module: Module, merged: Tree, schema: Schema, base_origin: str, overrides: Tree) -> None:
    module.config = completed(merged, schema)
    ours = dataclass_schema(TRAINING_SECTIONS)["properties"] if module.trains else {}
    written = {key: leaf.origin for key, leaf in leaves(merged)}
    sections = (module.config.get("training"), module.config.get("validation"))
    if module.trains and "validation.seq_len" not in written and all(isinstance(one, dict) for one in sections):
        # torchtitan's 2048 is longer than the rows of most models.
        module.config["validation"]["seq_len"] = module.config["training"]["seq_len"]
        written["validation.seq_len"] = "as training.seq_len"
    for key in flatten(module.config):
        section, name = [*key.split("."), ""][:2]
        is_ours = name in ours.get(section, {}).get("properties", {}) or section == "launcher"
        module.origins[key] = written.get(key) or ("default" if is_ours else base_origin)
    args_origins = {key: leaf.origin for key, leaf in leaves(overrides)}
    for key in flatten(module.model_args):
        flavor = "{name}/{flavor} of {base}".format(**module.config["model"], base=base_origin)
        module.origins[f"model.{key}"] = args_origins.get(key, flavor)


def _without_empty(tree: Tree, schema: Schema) -> Tree:
    """The tree without sections that are written and left empty (null): these get their defaults."""
    kept: Tree = {}
    others = schema.get("additionalProperties")
    for key, value in tree.items():
        below = schema.get("properties", {}).get(key, others if isinstance(others, dict) else {})
        if isinstance(value, dict):
            kept[key] = _without_empty(value, below)
        elif value.value is not None or "properties" not in below:
            kept[key] = value
    return remade(tree, kept)
