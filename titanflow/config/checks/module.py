"""Refuses values of a module that contradict each other, which a schema can't express, before anything runs."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from types import ModuleType

from titanflow.architectures.families.registry import PARAMETER_GROUPS, packing_refusals, routed_refusals
from titanflow.common.errors import Problem
from titanflow.config.checks.lora import SAVE_THEM, lora_warnings, saves_tokens
from titanflow.config.checks.model import warn_of_padding, warn_of_schedule
from titanflow.config.checks.named_values import check_named_values
from titanflow.config.checks.processes.launcher import check_launcher
from titanflow.config.checks.processes.parallelism import check_processes
from titanflow.config.checks.refused import optimizer_problems, refused_values
from titanflow.config.keys.optimizer import MUON
from titanflow.config.keys.repositories import idle_revisions
from titanflow.config.keys.training import names_rows
from titanflow.config.mixture import are_full, packs_rows, row_kinds
from titanflow.config.module import Module
from titanflow.config.settled.precision import KEY, mixes_nothing


def check_module(module: Module) -> list[Problem]:
    """What all files of this folder, and of folders in it, find: each names its functions in ``OF_TRAINING``, or in
    ``OF_`` and a stage's kind, as ``OF_EVALUATE``."""
    kind = "OF_TRAINING" if module.trains else f"OF_{module.kind.upper()}"
    return [problem for file in _files() for check in getattr(file, kind, ()) for problem in check(module)]


@cache
def _files() -> list[ModuleType]:
    package = __name__.rpartition("module")[0]
    names = sorted(file.name for file in pkgutil.walk_packages([str(Path(__file__).parent)], package))
    return [importlib.import_module(name) for name in names]


def check_launch(module: Module) -> list[Problem]:
    """Requirements of a start that aren't met: an address where machines meet, and the number of processes."""
    return check_launcher(module) or (check_processes(module) if module.trains else [])


def has_data(module: Module, section: str = "data") -> bool:
    """Whether the section says where rows come from."""
    return names_rows(module.config.get(section) or {})


def _check_datasets(module: Module) -> list[Problem]:
    """Datasets named in torchtitan's own way, beside this project's."""
    named = {"data": "training.dataset", "validation_data": "validation.dataset"}
    return [problem for section, titans in named.items() for problem in _check_dataset(module, section, titans)]


def _check_dataset(module: Module, section: str, titans: str) -> list[Problem]:
    written = [key for key in (titans, f"{titans}_path") if _is_set(module, key)]
    if has_data(module, section) and written:
        message = f"two sources: {written[0]} and {section}"
        hint = f'set {module.name}.{written[0]}: "" to leave it out'
        return [module.problem(written[0], message, expected="one of them", hint=hint)]
    return []


def _is_set(module: Module, key: str) -> bool:
    """Whether someone wrote a value, and not an empty one to take a default away."""
    return module.is_written(key) and bool(module.value(key))


def overruled(module: Module) -> list[str]:
    """Warnings of keys that have no effect because a stage sets them itself, and of other doubtful settings."""
    if not module.trains:
        return []
    reasons = {"job.dump_folder": "a stage writes into its run's folder", **idle_revisions(module)}
    if module.config["data"]["streaming"]:
        reasons["training.skip_rows"] = "streamed data has no order to begin later in"
        reasons["training.group_by_length"] = "streamed rows come as they are read"
    elif are_full(module.config["data"]):
        reasons["training.group_by_length"] = "rows of text and packed rows are all full"
    if module.base is not None:
        initial = ("checkpoint.initial_load_path", "checkpoint.initial_load_in_hf")
        reasons |= dict.fromkeys(initial, f"{module.name} starts from its base's weights")
    if module.config["optimizer"]["name"] != MUON:
        idle_keys = [f"optimizer.{key}" for key in module.config["optimizer"] if key.startswith("muon_")]
        reasons |= dict.fromkeys(idle_keys, f"optimizer.name is {module.config['optimizer']['name']}, not {MUON}")
    if module.kind != "prefer":
        idle_keys = [f"prefer.{key}" for key in module.config["prefer"]]
        reasons |= dict.fromkeys(idle_keys, "a stage of the kind prefer reads it")
    idle = {key: reason for key, reason in reasons.items() if _is_set(module, key)}
    if module.is_written("checkpoint.enable") and not module.value("checkpoint.enable"):
        idle["checkpoint.enable"] = "a stage always keeps checkpoints: the next one starts from them"
    if module.value(KEY) != "float32" and mixes_nothing(module) and module.is_written(KEY):
        why = "tensor and pipeline parallelism mix precisions only with FSDP; training.dtype sets it for everything"
        idle[KEY] = why
    without_effect = [f"{module.name}.{key} ({module.origins[key]}) has no effect: {why}" for key, why in idle.items()]
    return [*without_effect, *lora_warnings(module), *warn_of_schedule(module), *warn_of_padding(module)]


def _check_validation(module: Module) -> list[Problem]:
    # Without data of its own a module trains and validates on torchtitan's datasets.
    if not module.config["validation"]["enable"] or not has_data(module) or has_data(module, "validation_data"):
        return []
    message = "validation is on, and there is nothing to validate on"
    expected = "a data file in the module's `validation_data:`, or rows that its data holds out"
    hint = f"{module.name}.data.held_out: {{dev: 0.01}} keeps one in a hundred rows to validate on"
    return [module.problem("validation.enable", message, expected, hint)]


def _check_seq_len(module: Module) -> list[Problem]:
    seq_len, limit = module.config["training"]["seq_len"], module.model_args.get("max_seq_len")
    key = "model.max_seq_len"
    reason, hint = f"{module.name}.{key} ({module.origins.get(key, 'default')}) is {limit}", ""
    if module.base is not None:
        is_allowed = module.config["training"]["allow_longer_context"] or module.config["model"]["change_rope"]
        limit = None if is_allowed else module.base.seq_len
        reason = f"{module.base.stage} was trained with {limit}"
        hint = f"to train positions that it has never seen, set {module.name}.training.allow_longer_context: true"
        hint += ", or model.change_rope: true with another RoPE"
        hint += f", or raise {module.base.stage}.training.seq_len" if module.base.folder is None else ""
    if not limit or seq_len <= limit:
        return []
    message = f"found {seq_len}, and {reason}"
    return [module.problem("training.seq_len", message, expected=f"at most {limit}", hint=hint)]


def _check_refused(module: Module) -> list[Problem]:
    return module.placed(refused_values(module.config))


def _check_config_file(module: Module) -> list[Problem]:
    """torchtitan reads this file only from its own command line, which a stage doesn't use."""
    if not (found := module.value("job.config_file")):
        return []
    hint = f"write `modules: {{{module.name}: {{config: {found}}}}}`: torchtitan's TOML is read as a module file"
    return [module.problem("job.config_file", f"found {found!r}, which a stage doesn't read", "null", hint)]


def _check_checkpoints(module: Module) -> list[Problem]:
    """Settings that torchtitan refuses once each rank has its model, or when a run is resumed, or never."""
    config, problems = module.config["checkpoint"], []
    if config["keep_latest_k"] == 1:
        found = "found 1: if a save fails, no checkpoint would be left"
        problems.append(module.problem("checkpoint.keep_latest_k", found, "2 or more, or 0 to keep all"))
    if config["initial_load_in_hf"] and not config["initial_load_model_only"]:
        found = "found false: a model in transformers' format has no training state (initial_load_in_hf)"
        problems.append(module.problem("checkpoint.initial_load_model_only", found, "true"))
    if config["initial_load_in_hf_quantized"] and not config["initial_load_in_hf"]:
        found = "found true: only a model in transformers' format can be quantized in this way"
        problems.append(module.problem("checkpoint.initial_load_in_hf_quantized", found, "initial_load_in_hf: true"))
    return problems


def _check_sft(module: Module) -> list[Problem]:
    if module.kind != "sft" or module.config["training"]["mock_data"] or _is_set(module, "training.dataset"):
        return []
    if not has_data(module):
        return [nothing_to_train_on(module, "fine-tuning")]
    kind = module.config["data"]["kind"]
    if kind == "chat":
        return []
    hint = "a stage of the kind prefer trains on pairs" if kind == "pairs" else ""
    return [module.problem("data.kind", f"found {kind}: fine-tuning takes conversations", "chat", hint)]


def nothing_to_train_on(module: Module, what: str) -> Problem:
    """The mistake of a training for which nobody names rows; ``what`` is what it is called."""
    expected = f"a data file in `modules.{module.name}.data`, or a section `data`"
    return module.problem("data", f"{what} has nothing to train on", expected)


def _check_pairs(module: Module) -> list[Problem]:
    """Pairs where something else is trained on, and the other way round."""
    is_preference, problems = module.kind == "prefer", []
    if is_preference and not has_data(module):
        return [nothing_to_train_on(module, "preference optimisation")]
    for section in ("data", "validation_data"):
        kinds = row_kinds(module.config[section])
        if not has_data(module, section):
            continue
        if is_preference and kinds != {"pairs"}:
            found = f"found {' and '.join(sorted(kinds))}: preferences are trained on pairs of answers"
            problems.append(module.problem(f"{section}.kind", found, "pairs"))
        if not is_preference and module.kind != "sft" and "pairs" in kinds:
            hint = "a stage of the kind prefer trains on pairs"
            problems.append(module.problem(f"{section}.kind", f"found pairs, in a {module.kind}", "text or chat", hint))
    return problems


def _check_prefer(module: Module) -> list[Problem]:
    """What preference optimisation can't do."""
    if module.kind != "prefer":
        return []
    config, problems = module.config, []
    if config["prefer"]["loss"] == "ipo" and config["prefer"]["label_smoothing"]:
        found = f"found {config['prefer']['label_smoothing']}, and ipo has no such term"
        problems.append(module.problem("prefer.label_smoothing", found, "0, or loss: dpo"))
    if config["training"]["mock_data"]:
        problems.append(module.problem("training.mock_data", "random tokens are no pairs", "false"))
    if config["chat"]["turns"] == "each":
        found = "found each, and a pair is one row with all of its turns"
        problems.append(module.problem("chat.turns", found, "all or last"))
    for key in ("pipeline_parallel_degree", "context_parallel_degree"):
        if config["parallelism"][key] > 1:
            found = f"found {config['parallelism'][key]}: the loss needs the whole of both answers of a pair"
            problems.append(module.problem(f"parallelism.{key}", found, "1"))
    if config["model"]["name"] in PARAMETER_GROUPS:
        found = f"found {config['model']['name']}: a routed model's auxiliary losses have no meaning for pairs"
        problems.append(module.problem("model.name", found, "a family without routed layers"))
    return problems


def _check_base_tokenizer(module: Module) -> list[Problem]:
    size = module.config["tokenizer"]["vocab_size"]
    if module.base is None or size is None:
        return []
    message = f"found {size}: a training keeps its base's tokenizer"
    hint = "leave it out here, or change it in the base and pretrain again"
    return [module.problem("tokenizer.vocab_size", message, hint=hint)]


def _check_packing(module: Module) -> list[Problem]:
    config = module.config
    packed = [key for key in ("data", "validation_data") if packs_rows(config.get(key) or {})]
    if not packed:
        return []
    context, pipeline = (config["parallelism"][f"{kind}_parallel_degree"] for kind in ("context", "pipeline"))
    refusals = packing_refusals(config["model"]["name"], context, pipeline)
    hint = f"leave out {module.name}.{packed[0]}.packing, or what stands in its way"
    return [
        module.problem(key, f"found {module.value(key)}, and {packed[0]}.packing: {reason}", hint=hint)
        for key, reason in refusals.items()
    ]


def _check_routing(module: Module) -> list[Problem]:
    """Parallelism that would cut a routed layer's row, and what the optimizer can't do with this model."""
    config, groups = module.config, PARAMETER_GROUPS.get(module.config["model"]["name"], {})
    problems = module.placed(optimizer_problems(config, groups))
    if groups:
        degrees = {f"parallelism.{key}": value for key, value in config["parallelism"].items()}
        refusals = routed_refusals(degrees, module.model_args.get("attn_type", "sdpa"))
        problems += [module.problem(key, why) for key, why in refusals.items()]
    return problems


def _check_new_tokens(module: Module) -> list[Problem]:
    tokens, key = module.config["tokenizer"]["new_special_tokens"], "tokenizer.new_special_tokens"
    if not tokens:
        return []
    if module.base is None or module.base.folder is None:
        message = "found new tokens, but the base is trained in this experiment"
        return [module.problem(key, message, hint="give the base a tokenizer that has them (tokenizer.path)")]
    if len(set(tokens)) < len(tokens) or not all(token.strip() == token != "" for token in tokens):
        return [module.problem(key, f"found {tokens}", expected="different tokens without space around them")]
    if module.config["lora"]["rank"] and not saves_tokens(module.config["lora"]):
        message = "found new tokens, but adapters don't train embedding and output"
        return [module.problem(key, message, hint=f"{SAVE_THEM}, and the adapter has their rows")]
    return []


OF_TRAINING = (
    *(_check_datasets, _check_validation, _check_seq_len, _check_refused, _check_config_file),
    *(check_named_values, _check_checkpoints, _check_sft, _check_base_tokenizer, _check_packing, _check_routing),
    *(_check_new_tokens, _check_pairs, _check_prefer),
)
