"""Values that no stage follows: the plan refuses them, and so does a stage that is run by hand.

Each problem has the dotted key of its value; who asks knows the module and where the value was written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from titanflow.common.errors import Problem
from titanflow.config.keys.optimizer import MUON
from titanflow.runs.checkpoints import CHECKPOINTS, TRAINING_STATE, exclusion_refusal
from titanflow.runs.contract import EXPORT_FOLDER, METRICS_FILE, RESULT_FILE, RUN_FILE
from titanflow.runs.errors import ERROR_FILE

REFUSED = {
    "checkpoint.create_seed_checkpoint": "torchtitan would save the untrained model and end; a stage trains",
    "checkpoint.load_only": "a stage's result is its last checkpoint, which would not be saved",
    "checkpoint.last_save_in_hf": "a stage exports by itself, with everything that transformers needs",
    "memory_estimation.enable": "only a script of torchtitan's reads it; `titanflow plan` forecasts the memory",
    "memory_estimation.disable_fake_mode": "only a script of torchtitan's reads it",
    "model.tokenizer_path": "only torchtitan's command line reads it; write `tokenizer.path`",
}
"""Keys that can't be set in a stage, with the reason."""
WRITTEN = (
    "comm.save_traces_file_prefix",
    "comm.save_traces_folder",
    "job.save_config_file",
    "metrics.save_tb_folder",
    "profiling.save_memory_snapshot_folder",
    "profiling.save_traces_folder",
)
"""Keys that name what torchtitan writes below the stage's folder."""
OWN = (CHECKPOINTS, EXPORT_FOLDER, RUN_FILE, RESULT_FILE, METRICS_FILE, ERROR_FILE)
"""Names in a stage's folder that mean something else."""


def refused_values(config: Mapping[str, Any]) -> list[Problem]:
    """Keys of a complete training config that can't be set in a stage."""
    problems = []
    for key, why in REFUSED.items():
        section, _, name = key.partition(".")
        if found := config[section][name]:
            problems.append(Problem(f"found {json.dumps(found)}", key, hint=why))
    if (mode := config["comm"]["mode"]) != "default":
        why = "the ranks would exchange nothing, and each train a model of its own"
        problems.append(Problem(f"found {mode!r}", "comm.mode", expected="default", hint=why))
    if (step := config["checkpoint"]["load_step"]) >= 0:
        why = "to branch off from that step, give another run its folder as checkpoint.initial_load_path"
        found = f"found {step}, and a run goes on from its newest checkpoint"
        problems.append(Problem(found, "checkpoint.load_step", expected="-1", hint=why))
    if (folder := config["checkpoint"]["folder"]) != CHECKPOINTS:
        why = "later stages, `titanflow export` and a resumed run look there"
        problems.append(Problem(f"found {folder!r}", "checkpoint.folder", expected=CHECKPOINTS, hint=why))
    problems += _misplaced(config)
    profiling = config["profiling"]
    if profiling["enable_profiling"] and (lacks := _steps_of_a_profile(profiling)) > profiling["profile_freq"]:
        expected = f"at least {lacks}: profiler_warmup + profiler_active"
        problems.append(Problem(f"found {profiling['profile_freq']}", "profiling.profile_freq", expected=expected))
    if reason := exclusion_refusal(config["checkpoint"]["exclude_from_loading"]):
        expected = f"some of {', '.join(TRAINING_STATE)}, and lr_scheduler wherever optimizer is"
        problems.append(Problem(reason, "checkpoint.exclude_from_loading", expected=expected))
    return problems


def _misplaced(config: Mapping[str, Any]) -> list[Problem]:
    """Names of files and folders that would lead out of the stage's folder, or be one of its own."""
    problems = []
    for key in WRITTEN:
        section, _, name = key.partition(".")
        named = config[section][name]
        parts = PurePath(named or "").parts
        if named and (PurePath(named).is_absolute() or ".." in parts):
            found, expected = f"found {named!r}, which leads out of the stage's folder", "a name in that folder"
            problems.append(Problem(found, key, expected=expected))
        elif parts and parts[0] in OWN:
            problems.append(Problem(f"found {named!r}, which the stage has for itself", key, expected="another name"))
    return problems


def _steps_of_a_profile(profiling: Mapping[str, Any]) -> int:
    return int(profiling["profiler_warmup"] + profiling["profiler_active"])


def optimizer_problems(config: Mapping[str, Any], groups: Iterable[str]) -> list[Problem]:
    """Learning rates of parameter groups that the model's family lacks, and what groups or Muon can't be used with."""
    optimizer = config["optimizer"]
    rates, expected = optimizer["group_lr"], " or ".join(groups) or "nothing: this model family has one group"
    unknown = [f"optimizer.group_lr.{name}" for name in rates if name not in groups]
    problems = [Problem("unknown group", key, expected=expected) for key in unknown]
    is_muon = optimizer["name"] == MUON
    if optimizer["early_step_in_backward"] and (rates or is_muon):
        beside = "optimizer.group_lr" if rates else f"optimizer.name: {MUON}"
        problems.append(Problem(f"found true, with {beside}", "optimizer.early_step_in_backward", expected="false"))
    if is_muon and config["training"]["enable_cpu_offload"]:
        found = "found true, with optimizer.name: Muon, whose matrix products would run on the CPU"
        problems.append(Problem(found, "training.enable_cpu_offload", expected="false, or AdamW"))
    return problems
