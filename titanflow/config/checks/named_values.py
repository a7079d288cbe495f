"""Checks names that torchtitan would look up only once a stage runs, perhaps hours later.

By torchtitan's own types any text will do. A test asks the installed torchtitan and torch for each name here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from importlib.metadata import entry_points

from titanflow.architectures.custom_code import custom_import
from titanflow.common.errors import Problem, did_you_mean
from titanflow.common.files import expanded
from titanflow.config.files.tree import is_file
from titanflow.config.keys.optimizer import MUON
from titanflow.config.module import Module

OPTIMIZERS = ("Adam", "AdamW")
COMPILED = ("model", "loss")
BACKENDS = ("inductor", "cudagraphs", "eager", "aot_eager", "aot_eager_decomp_partition", "tvm", "openxla")
"""torch's backends of torch.compile; its others serve to find faults in torch itself."""
BACKENDS_OF = "torch_dynamo_backends"
"""The entry points by which a package names a backend."""
SCHEDULES = (
    *("1F1B", "Interleaved1F1B", "GPipe", "LoopedBFS", "InterleavedZeroBubble"),
    *("PipelineScheduleSingle", "PipelineScheduleMulti", "ZBVZeroBubble", "DualPipeV"),
)
"""torch's pipeline schedules; upper and lower case are the same to it."""
CONVERTERS = (
    *("quantize.linear.float8", "quantize.grouped_mm.float8", "quantize.linear.mx", "quantize.grouped_mm.mx"),
    "document_attention",
)
"""torchtitan's model converters, and this project's."""


def check_named_values(module: Module) -> list[Problem]:
    """Unknown names, and fault tolerance without its package."""
    config = module.config
    problems: list[Problem] = []
    # The user's own code may bring an optimizer, or register a converter.
    if not custom_import(config):
        problems += _unknown(module, "optimizer.name", [config["optimizer"]["name"]], (*OPTIMIZERS, MUON))
        problems += _unknown(module, "model.converters", config["model"]["converters"], CONVERTERS)
    problems += _compiled(module)
    schedule, csv = (config["parallelism"][f"pipeline_parallel_schedule{end}"] for end in ("", "_csv"))
    if schedule.lower() not in map(str.lower, SCHEDULES) and not csv:
        problems += _unknown(module, "parallelism.pipeline_parallel_schedule", [schedule], SCHEDULES)
    if csv and not is_file(expanded(csv)):
        expected = "a file with the schedule, one row for each pipeline rank"
        problems.append(module.problem("parallelism.pipeline_parallel_schedule_csv", f"no file {csv!r}", expected))
    option = config["activation_checkpoint"]["selective_ac_option"]
    if option != "op" and not (option.isdecimal() and int(option)):
        key, expected = "activation_checkpoint.selective_ac_option", 'op, or every how many layers: "2"'
        problems.append(module.problem(key, f"found {option!r}", expected))
    if config["fault_tolerance"]["enable"] and importlib.util.find_spec("torchft") is None:
        hint = "a stage that is killed goes on from its newest checkpoint without it"
        problems.append(module.problem("fault_tolerance.enable", "torchft isn't installed", "false", hint))
    return problems


def _compiled(module: Module) -> list[Problem]:
    found = module.config["compile"]
    problems = [*_unknown(module, "compile.components", found["components"], COMPILED)]
    # The user's own code may register a backend, and so may an installed package.
    if found["backend"] not in BACKENDS and not custom_import(module.config):
        known = (*BACKENDS, *entry_points(group=BACKENDS_OF).names)
        problems += _unknown(module, "compile.backend", [found["backend"]], known)
    return problems


def _unknown(module: Module, key: str, found: list[str], known: tuple[str, ...]) -> Iterator[Problem]:
    for name in found:
        if name not in known:
            yield module.problem(key, f"found {name!r}", f"one of {', '.join(known)}", did_you_mean(name, known))
