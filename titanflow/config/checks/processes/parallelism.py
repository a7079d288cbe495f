"""Checks that a module's parallelism fits its processes and its model, on any device."""

from __future__ import annotations

from math import prod

from titanflow.common.errors import Problem
from titanflow.config.batch import check_batch
from titanflow.config.checks.processes.pipeline import check_pipeline
from titanflow.config.checks.processes.pipeline_cut import parallel_problem
from titanflow.config.module import Module

EXACT = (
    "data_parallel_replicate_degree",
    "tensor_parallel_degree",
    "context_parallel_degree",
    "pipeline_parallel_degree",
)
"""Degrees that are numbers of ranks; :data:`SHARD` may also be -1, all ranks that these leave."""
SHARD = "data_parallel_shard_degree"
PIPELINE = "pipeline_parallel_degree"


def check_parallelism(module: Module) -> list[Problem]:
    """Degrees that don't fit the model, its rows or each other; torchtitan asserts it once each rank has its model."""
    degrees = module.config["parallelism"]
    if wrong := _no_degrees(module):
        return [parallel_problem(module, key, f"found {degrees[key]}", "1 or more") for key in wrong]
    return [*_check_shares(module), *_check_tied_stages(module), *_check_compiled(module)]


def check_processes(module: Module) -> list[Problem]:
    """Degrees that the processes don't allow: their product is another number, or a setting needs more processes."""
    if _no_degrees(module):
        return []
    checks = (_check_degrees, _check_experts, _check_offload)
    problems = [problem for check in checks for problem in check(module)]
    # Only degrees that fit tell which ranks read different rows.
    return problems or check_batch(module) or check_pipeline(module)


def _no_degrees(module: Module) -> list[str]:
    degrees = module.config["parallelism"]
    wrong = [key for key in EXACT if degrees[key] < 1]
    return wrong + ([SHARD] if degrees[SHARD] < 1 and degrees[SHARD] != -1 else [])


def is_sharded(module: Module) -> bool:
    """Whether torchtitan wraps the model in FSDP."""
    degrees = module.config["parallelism"]
    shard = degrees[SHARD]
    if shard == -1:
        shard = _processes(module) // prod(degrees[key] for key in EXACT)
    # torchtitan shards over the context-parallel ranks, too.
    return shard > 1 or degrees["context_parallel_degree"] > 1


def _processes(module: Module) -> int:
    launcher = module.config["launcher"]
    return int(launcher["nproc_per_node"]) * int(launcher["nnodes"])


def _check_degrees(module: Module) -> list[Problem]:
    degrees, processes = module.config["parallelism"], _processes(module)
    wanted = prod(degrees[key] for key in EXACT)
    named = {key: degrees[key] for key in (*EXACT, SHARD) if degrees[key] > 1}
    shown = " × ".join(f"{key}={value}" for key, value in named.items())
    first = next(iter(named), SHARD)
    total, takes_rest = wanted * degrees[SHARD], degrees[SHARD] == -1
    if total == processes or (takes_rest and processes % wanted == 0):
        return _check_replicas(module, named)
    started = f"and the launcher starts {processes}"
    if takes_rest:
        return [parallel_problem(module, first, f"{shown}, {started}", f"a divisor of {processes}")]
    message, hint = f"{shown or 'every degree is 1'}: {total}, {started}", f"{SHARD}: -1 takes what the others leave"
    return [parallel_problem(module, first, message, f"degrees that multiply to {processes}", hint)]


def _check_replicas(module: Module, named: dict[str, int]) -> list[Problem]:
    replicas = "data_parallel_replicate_degree"
    if replicas not in named or is_sharded(module) or len(named) == 1:
        return []
    message = f"found {named[replicas]}: without FSDP, replicas can't be combined with other parallelism"
    return [parallel_problem(module, replicas, message, f"{SHARD} above 1, or 1 here")]


def _check_shares(module: Module) -> list[Problem]:
    config, args = module.config, module.model_args
    tensor, context = (config["parallelism"][f"{kind}_parallel_degree"] for kind in ("tensor", "context"))
    problems = []
    for key in ("n_heads", "n_kv_heads"):
        if (count := args.get(key)) and count % tensor:
            message = f"found {tensor}, and the model's {key} is {count}"
            problems.append(parallel_problem(module, "tensor_parallel_degree", message, f"a divisor of {count}"))
    for section in ("training", *(["validation"] if config["validation"]["enable"] else [])):
        seq_len = config[section]["seq_len"]
        divisor, parts = tensor, "tensor_parallel_degree"
        # torchtitan's families assert this for training rows, even where ranks don't share them.
        if context > 1 or (section == "training" and args):
            divisor, parts = 2 * context * tensor, "2 × context_parallel_degree × tensor_parallel_degree"
        if seq_len % divisor:
            expected = f"a multiple of {divisor}, which is {parts}"
            problems.append(module.problem(f"{section}.seq_len", f"found {seq_len}", expected))
    return problems


def _check_experts(module: Module) -> list[Problem]:
    # Experts are divided among the ranks that share a replica's other weights.
    degrees = module.config["parallelism"]
    experts, tensor = degrees["expert_parallel_degree"], degrees["expert_tensor_parallel_degree"]
    sharing = _processes(module) // (degrees["data_parallel_replicate_degree"] * degrees[PIPELINE])
    if experts < 2 or sharing % (experts * max(tensor, 1)) == 0:
        return []
    message = f"found {experts}, with {sharing} of the processes sharing the weights of a replica"
    hint = f"launcher.nproc_per_node: {experts} would start as many processes on one machine"
    return [parallel_problem(module, "expert_parallel_degree", message, f"a divisor of {sharing}", hint)]


def _check_offload(module: Module) -> list[Problem]:
    if not module.config["training"]["enable_cpu_offload"] or is_sharded(module):
        return []
    message = "found true without FSDP, which offloads: the model would stay on the CPU, and its input would not"
    return [module.problem("training.enable_cpu_offload", message, f"{SHARD} above 1, or false")]


def _check_tied_stages(module: Module) -> list[Problem]:
    degree = module.config["parallelism"][PIPELINE]
    if not module.model_args.get("enable_weight_tying") or degree < 2:
        return []
    message = f"found {degree}: embedding and output are one weight, and lie on the first and last stage"
    return [parallel_problem(module, PIPELINE, message, "1, or model.enable_weight_tying: false")]


def _check_compiled(module: Module) -> list[Problem]:
    config = module.config
    if config["compile"]["enable"] and "model" in config["compile"]["components"]:
        return []
    needed = "compile.enable: true, with model among compile.components"
    problems = []
    if config["activation_checkpoint"]["mode"] == "memory_budget":
        message = "found 'memory_budget', which only a compiled model can keep to"
        problems.append(module.problem("activation_checkpoint.mode", message, f"selective or full, or {needed}"))
    if config["parallelism"]["enable_async_tensor_parallel"] and config["parallelism"]["tensor_parallel_degree"] > 1:
        message = "found true, which needs a compiled model"
        problems.append(parallel_problem(module, "enable_async_tensor_parallel", message, needed))
    return problems


OF_TRAINING = (check_parallelism,)
