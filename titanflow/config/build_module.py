"""Builds a module of an experiment: merges its files, resolves its model, checks the rest and fills in the defaults."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from titanflow.architectures.custom_code import reach_own_code
from titanflow.architectures.torchtitan import load_snapshot
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.architecture import SECTIONS, Architecture, ModelPart, resolve_architecture
from titanflow.config.files.schema import Schema, check_shape, dataclass_schema, fitted, merge_schemas, resolve
from titanflow.config.files.tree import ConfigTree
from titanflow.config.ignored import remove_values
from titanflow.config.keys.training import TRAINING_SECTIONS
from titanflow.config.model_args import check_params, take_unknown
from titanflow.config.module import Module, stage_schema
from titanflow.config.module_files import Entry, merge_files
from titanflow.config.stages import entry_problems, kind_of
from titanflow.files.yaml_source import Leaf, Tree, first_origin, flatten, leaves, take_out
from titanflow.runs.contract import TRAINED

FRAMEWORKS = dict.fromkeys(TRAINED, "torchtitan") | {"evaluate": "lm_eval", "publish": "huggingface_hub"}


def build_module(
    entry: Entry, configs: ConfigTree, earlier: Mapping[str, Module], is_broken: bool
) -> tuple[Module | None, list[Problem]]:
    """Resolves one entry of ``modules``, and its mistakes; None where these leave nothing to look at.

    Its base may be among ``earlier``. ``is_broken`` says that mistakes were found before this entry.
    """
    name, spec, kind = entry.name, entry.spec, kind_of(entry.name, entry.spec)
    if wrong := entry_problems(name, spec, earlier):
        return None, wrong
    assert kind is not None
    framework, named = FRAMEWORKS[kind], spec.get("framework")
    if isinstance(named, Leaf) and named.value is not None and str(named.value) != framework:
        return None, [Problem(f"found {str(named.value)!r}", f"{entry.key}.framework", named.origin, framework)]
    files = merge_files(entry, configs, kind, framework)
    schema, prefix = stage_schema(kind), f"{name}."
    tree = fitted(files.tree, schema)
    if wrong := files.unread or check_shape(tree, schema, prefix):
        return None, files.problems + wrong
    sections = {key: tree[key] for key in SECTIONS if key in tree}
    ignored = remove_values(sections, entry.ignored, name)
    model, trains, problems, warnings = Architecture(), framework == "torchtitan", files.problems, files.warnings
    if trains:
        schema, wrong, warned = _with_own_sections(schema, tree, name)
        problems, warnings = problems + wrong, warnings + warned
        settings, is_broken = entry.settings.get("model"), is_broken or bool(problems)
        part = ModelPart(name, kind, sections, spec.get("params"), settings, first_origin(spec), is_broken)
        model = resolve_architecture(part, schema["properties"]["model"], earlier)
        tree |= sections
    problems += [*model.problems, *check_params(spec.get("params"), f"{prefix}params", schema, trains)]
    ignored += take_out(tree, entry.ignored.unknown(schema, prefix), prefix)
    if trains and isinstance(tree.get("model"), dict):
        problems += take_unknown(tree["model"], schema["properties"]["model"], name)
    config, wrong = resolve(tree, schema, prefix)
    problems += wrong
    if kind == "evaluate":
        problems += _place_tasks(config, tree, configs, prefix)
    origin = named.origin if isinstance(named, Leaf) else "default"
    module = Module(name, kind, framework, config, {}, model.model_overrides, model.model_args, model.base)
    module.named = {"framework": (framework, origin), **files.named}
    module.origin = first_origin(spec)
    module.ignored, module.warnings = ignored, warnings + model.warnings
    _set_origins(module, tree, model.overrides)
    return module, problems


def _place_tasks(config: dict[str, Any], tree: Tree, configs: ConfigTree, prefix: str) -> list[Problem]:
    """Replaces the name of the evaluation's own task folder by its path, which its stage reads."""
    named = config.get("include_path")
    if not named or not isinstance(named, str):
        return []
    leaf = tree.get("include_path", Leaf(named, "default"))
    try:
        config["include_path"] = str(configs.folder(leaf, f"{prefix}include_path"))
    except ConfigError as error:
        return error.problems
    return []


def _with_own_sections(schema: Schema, tree: Tree, name: str) -> tuple[Schema, list[Problem], list[str]]:
    """The schema with the sections of the module that a user names for them, and mistakes and warnings of that."""
    places = (("experimental", "custom_args_module"), ("job", "custom_config_module"))
    named = (tree.get(section, {}).get(key) for section, key in places)
    leaf = next((one for one in named if one is not None and one.value), None)
    if leaf is None or leaf.value == "titan.train.job_config":
        return schema, [], []
    key = f"{name}.experimental.custom_args_module"
    reach_own_code()
    try:
        return merge_schemas(schema, dataclass_schema(importlib.import_module(str(leaf.value)).JobConfig)), [], []
    except ImportError as error:
        return schema, [], [f"{key}: can't import {leaf.value}: {error}"]
    except Exception as error:
        message, expected = f"{leaf.value}: {type(error).__name__}: {error}", "a module with a dataclass JobConfig"
        return schema, [Problem(message, key, leaf.origin, expected)], []


def _set_origins(module: Module, tree: Tree, overrides: Tree) -> None:
    """Says where each value comes from: a line that was written, this project's defaults, or torchtitan's."""
    config, origins = module.config, {key: leaf.origin for key, leaf in leaves(tree)}
    base = f"torchtitan {load_snapshot()['torchtitan']}" if module.trains else "default"
    ours = dataclass_schema(TRAINING_SECTIONS)["properties"] if module.trains else {}
    sections = (config.get("training"), config.get("validation"))
    if module.trains and "validation.seq_len" not in origins and all(isinstance(one, dict) for one in sections):
        # torchtitan's 2048 is longer than the rows of most models.
        config["validation"]["seq_len"] = config["training"]["seq_len"]
        origins["validation.seq_len"] = "as training.seq_len"
    for key in flatten(config):
        section, name = [*key.split("."), ""][:2]
        own = ours.get(section)
        is_ours = own is not None and (section == "launcher" or name in own.get("properties", (name,)))
        module.origins[key] = origins.get(key) or ("default" if is_ours else base)
    arguments = {key: leaf.origin for key, leaf in leaves(overrides)}
    for key in flatten(module.model_args):
        flavor = "{name}/{flavor} of {base}".format(**config["model"], base=base)
        module.origins[f"model.{key}"] = arguments.get(key, flavor)
