"""This project's sections as torchtitan's custom config module, and the config of a stage built from them.

``job.custom_config_module = "titan.train.job_config"`` merges :class:`JobConfig` into torchtitan's own; a module that
the user names in ``experimental.custom_args_module`` is merged on top.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import asdict, field, fields, is_dataclass, make_dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from titan.train.inheritance import inherited_args
from titanflow.architectures.base import BaseArchitecture
from titanflow.architectures.custom_code import reach_own_code
from titanflow.architectures.families.registry import PARAMETER_GROUPS, packing_refusals
from titanflow.common.errors import ConfigError, Problem
from titanflow.config.batch import data_parallel_share, local_share, unshared
from titanflow.config.checks.lora import other_problems
from titanflow.config.checks.refused import optimizer_problems, refused_values
from titanflow.config.keys.training import TRAINING_SECTIONS
from titanflow.config.mixture import packs_rows
from titanflow.runs.contract import StageRun

if TYPE_CHECKING:
    from torchtitan.config import JobConfig as TitanJobConfig

MODULE = "titan.train.job_config"

# torchtitan asks is_dataclass(field.type), so types must be classes; keys/training.py has strings.
_TYPES = get_type_hints(TRAINING_SECTIONS)
JobConfig = make_dataclass(
    "JobConfig",
    [
        (
            one.name,
            _TYPES[one.name],
            field(default_factory=_TYPES[one.name]) if is_dataclass(_TYPES[one.name]) else None,
        )
        for one in fields(TRAINING_SECTIONS)
    ],
)


def build_job_config(run: StageRun) -> TitanJobConfig:
    """torchtitan's ``JobConfig`` with this project's sections and the user's, filled from ``run.config``."""
    from torchtitan.config import ConfigManager

    merged = merged_config_class(run)
    try:
        config = ConfigManager(merged)._dict_to_dataclass(merged, run.config)
    except (ValueError, TypeError) as error:
        raise ConfigError(Problem(str(error), origin=str(run.folder / "run.yaml"))) from error
    config.job.custom_config_module = MODULE
    return config


def apply_stage_defaults(config: TitanJobConfig, run: StageRun, base: BaseArchitecture | None) -> None:
    """Sets what follows from the stage's folder and its base, in place; refuses keys that a stage can't follow."""
    from torchtitan.tools import utils

    from titan.models.documents import DOCUMENT_ATTENTION

    groups = PARAMETER_GROUPS.get(base.model_name if base else config.model.name, {})
    values = asdict(config)
    problems = [*refused_values(values), *optimizer_problems(values, groups)]
    if config.launcher.device == "cuda" and utils.device_type == "cpu":
        expected = "auto or cpu, or a machine with a GPU"
        problems.append(Problem("found 'cuda', and torch finds no GPU here", "launcher.device", expected=expected))
    if problems:
        raise ConfigError(run.placed(problems))
    share_global_batch(config, run, int(os.environ.get("WORLD_SIZE", "1")))
    config.job.dump_folder = str(run.folder)
    config.checkpoint.enable = True
    if run.tokenizer is not None:
        config.model.hf_assets_path = str(run.tokenizer)
    if base is not None:
        config.model.name, config.model.flavor = base.model_name, base.flavor
        config.checkpoint.initial_load_path = str(base.checkpoint)
        config.checkpoint.initial_load_model_only = True
        config.checkpoint.initial_load_in_hf = base.in_hf
    if _keeps_documents_apart(config, run, base) and DOCUMENT_ATTENTION not in config.model.converters:
        config.model.converters = [*config.model.converters, DOCUMENT_ATTENTION]
    if config.lora.rank:
        _use_adapters(config, run, base)
    if config.training.loss_chunks > 1:
        from titan.train.chunked_loss import CHUNKED_LOSS, CHUNKED_TOKEN_LOSSES

        # Behind the others: an adapter, or a layer of 8-bit products, may be what computes the logits.
        own = CHUNKED_TOKEN_LOSSES if run.kind == "prefer" else CHUNKED_LOSS
        config.model.converters = [*config.model.converters, own]
    if utils.device_type == "cpu":
        # The flight recorder records NCCL alone; on a CPU it would leave an empty folder.
        config.comm.trace_buf_size = 0
    if not sys.stdout.isatty():
        config.metrics.disable_color_printing = True


def _keeps_documents_apart(config: TitanJobConfig, run: StageRun, base: BaseArchitecture | None) -> bool:
    """Whether positions, not end-of-sequence tokens, say where documents end.

    That is so for packed rows. It is also so in sft with flex or varlen attention: torchtitan's masks for these end a
    document at each end-of-sequence token, which may stand inside a conversation.
    """
    if any(packs_rows(run.config.get(section) or {}) for section in ("data", "validation_data")):
        return True
    attention = inherited_args(base, run).get("attn_type", "sdpa") if base else "sdpa"
    parallelism = config.parallelism
    degrees = (parallelism.context_parallel_degree, parallelism.pipeline_parallel_degree)
    return attention in ("flex", "varlen") and not packing_refusals(config.model.name, *degrees)


def _use_adapters(config: TitanJobConfig, run: StageRun, base: BaseArchitecture | None) -> None:
    """Adds LoRA's converter; refuses a stage without a base, or one whose base has changed since it began."""
    from titan.models.lora import CONVERTER, register_converter
    from titan.weights.stage_model import base_checkpoint
    from titanflow.runs.training import Training

    problems = other_problems(run.config)
    if base is None:
        hint = "adapters belong in an sft stage"
        problems.append(Problem("LoRA trains beside a finished base, and this stage has none", "lora.rank", hint=hint))
    if problems:
        raise ConfigError(run.placed(problems))
    if os.environ.get("RANK", "0") == "0":
        base_checkpoint(Training(run))
    register_converter()
    config.model.converters = [*config.model.converters, CONVERTER]


def share_global_batch(config: TitanJobConfig, run: StageRun, world_size: int) -> None:
    """Reduces the local batch where the ranks' batches together would exceed the global one, and says so."""
    training = config.training
    rows, local = training.global_batch_size, training.local_batch_size
    ranks = data_parallel_share(world_size, vars(config.parallelism))
    share = local_share(rows, local, ranks)
    if share is None:
        found, expected = unshared(rows, local, ranks)
        raise ConfigError(run.placed([Problem(found, "training.global_batch_size", expected=expected)]))
    if share != local:
        print(f"training.local_batch_size: {local} → {share}, so that {ranks} ranks share {rows} rows")
        training.local_batch_size = share


def merged_config_class(run: StageRun) -> type:
    """torchtitan's ``JobConfig``, with ours and then the user's ``experimental.custom_args_module`` merged in."""
    from torchtitan.config import ConfigManager
    from torchtitan.config import JobConfig as TitanConfig

    merged: type = ConfigManager._merge_configs(TitanConfig, JobConfig)
    for section, key in (("experimental", "custom_args_module"), ("job", "custom_config_module")):
        module = (run.config.get(section) or {}).get(key)
        if module and module != MODULE:
            merged = ConfigManager._merge_configs(merged, _user_config(module, f"{section}.{key}", run))
    return merged


def _user_config(module: str, key: str, run: StageRun) -> Any:
    reach_own_code()
    try:
        return importlib.import_module(module).JobConfig
    except (ImportError, AttributeError) as error:
        expected = "a module on the Python path with a dataclass JobConfig"
        raise ConfigError(run.placed([Problem(f"found {module!r}: {error}", key, expected=expected)])) from error
